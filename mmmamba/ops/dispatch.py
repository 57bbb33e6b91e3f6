"""How an op chooses among its backends.

A backend is data (what it can take, how accurate it is) and one function that runs the forward and carries its own
backward. An op lists its backends in order of preference. The choice looks at the inputs and the machine only; there
is no switch in the environment and no module state.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import flop_registry, register_flop_formula

TRACES_TRANSFORMS = torch.torch_version.TorchVersion(torch.__version__) >= '2.11'
"""Whether torch.compile can trace the question about transforms: 2.11 can, 2.4 cannot; nothing between was tried."""


@dataclass(frozen=True)
class Tolerance:
    """Largest ‖got - expected‖ / ‖expected‖ against the float64 recurrence on the same, already rounded, inputs."""

    forward: float
    gradient: float


TOLERANCES = {
    torch.float64: Tolerance(forward=1e-12, gradient=1e-11),
    torch.float32: Tolerance(forward=2e-6, gradient=2e-5),
    torch.float16: Tolerance(forward=1e-3, gradient=1e-3),
    torch.bfloat16: Tolerance(forward=8e-3, gradient=8e-3),
}
"""What every backend keeps, by the dtype of the inputs."""

FLOAT32_AND_HALVES = (torch.float32, torch.float16, torch.bfloat16)
FLOATS = (torch.float64, *FLOAT32_AND_HALVES)

WITHOUT_AUTOCAST = frozenset(kind for kind in ('meta', 'mps') if not torch.amp.is_autocast_available(kind))
"""Device types without autocast. Asked here, since torch.compile of PyTorch 2.11 cannot trace the question."""


@dataclass(frozen=True)
class Backend:
    """One implementation of an op: a row of its table ``BACKENDS``.

    Attributes:
        name: What the caller's ``backend=`` names.
        run: Forward; its result carries the backward in its autograd graph.
        dtypes: Of inputs that the backend takes.
        devices: Device types that the backend runs on; None for all.
        unavailable: Returns why the backend cannot run on this machine whatever the inputs are, or None if it can.
            Traced by ``torch.compile`` with the rest of the choice, so it only returns what is known already. None for
            a backend that always can.
        transformable: Whether forward-mode derivatives and the transforms of ``torch.func`` go through it.
    """

    name: str
    run: Callable[..., Any]
    dtypes: tuple[torch.dtype, ...]
    devices: tuple[str, ...] | None = None
    unavailable: Callable[[], str | None] | None = None
    transformable: bool = False

    def unsupported_reasons(self, inputs: Iterable[Tensor]) -> list[str]:
        """Returns one sentence for each thing that keeps this backend from running on ``inputs``."""
        reasons = []
        unavailable = None if self.unavailable is None else self.unavailable()
        if unavailable is not None:
            reasons.append(unavailable)
        for tensor in inputs:
            if self.devices is not None and tensor.device.type not in self.devices:
                reasons.append(f'It runs on {", ".join(self.devices)}, and an input is on {tensor.device.type}.')
            if tensor.dtype not in self.dtypes:
                reasons.append(f'It does not take {tensor.dtype}.')
        if not self.transformable and in_forward_mode():
            reasons.append('It has no forward-mode derivative, and forward mode is on.')
        if not self.transformable and in_transform():
            reasons.append('It does not run inside transforms of torch.func (grad, vjp, jvp, vmap and others).')
        return list(dict.fromkeys(reasons)) if reasons else reasons


def select(op: str, backends: Sequence[Backend], inputs: Sequence[Tensor], name: str | None) -> Backend:
    """Returns the named backend, or the first one that has no reason against it.

    Raises:
        ValueError: ``name`` is not one of ``backends``.
        RuntimeError: The named backend, or every backend, has a reason against these inputs; the message lists them
            and names the backends that have none.
    """
    refusals, known = [], name is None
    for backend in backends:
        if name is not None and backend.name != name:
            continue
        known = True
        reasons = backend.unsupported_reasons(inputs)
        if not reasons:
            return backend
        refusals.append(f'{backend.name}: {" ".join(reasons)}')
    if not known:
        raise ValueError(f'{op} has no backend named {name!r}; it has {", ".join(b.name for b in backends)}.')
    able = [backend.name for backend in backends if not backend.unsupported_reasons(inputs)]
    if able:
        refusals.append(f'Able to: {", ".join(able)}.')
    raise RuntimeError(f'{op} cannot run on these inputs. ' + ' '.join(refusals))


def compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Returns the dtype of state and accumulation: float32 whatever the inputs are, float64 if one of them is."""
    for tensor in tensors:
        if tensor is not None and tensor.dtype == torch.float64:
            return torch.float64
    return torch.float32


def in_forward_mode() -> bool:
    """Returns whether forward-mode differentiation is on.

    Which tensors carry tangents is not asked: inside nested transforms and below autograd, some cannot be seen.
    """
    return forward_ad._current_level >= 0


def in_transform() -> bool:
    """Returns whether a transform of ``torch.func`` is at work; an older PyTorch cannot ask while it traces: False."""
    return (TRACES_TRANSFORMS or not torch.compiler.is_compiling()) and torch._C._are_functorch_transforms_active()


def refusing_forward_mode(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the kernel of an operator such that it refuses to run in forward mode.

    PyTorch runs an operator without a forward-mode derivative on the values alone: its result would silently count as
    a constant.
    """

    def run(*inputs: Any) -> Any:
        if in_forward_mode():
            raise RuntimeError(
                'This operator has no forward-mode derivative, and forward mode is on. The functions of mmmamba.ops, '
                'called without a backend and not compiled before, choose one that has it.'
            )
        return kernel(*inputs)

    return run


def register_flops(operator: Any, formula: Callable[..., int]) -> None:
    """Has ``FlopCounterMode`` count an operator, ``torch.ops.mmmamba.<name>``, by a formula of its inputs' shapes.

    PyTorch 2.4 files the formula by overload, but looks for the operator.
    """
    flop_registry[operator] = register_flop_formula(operator)(formula)


def refuse_second_derivative(other: str = 'reference') -> None:
    """Raises where a backward pass is itself differentiated: its result would silently count as a constant.

    Args:
        other: The backend that has second derivatives.
    """
    if torch.is_grad_enabled() or in_forward_mode():
        raise RuntimeError(
            'This backend has no second derivative (create_graph=True, or forward mode over a backward pass); '
            f'use backend="{other}".'
        )


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Switches autocast off on a device type that has it: the ops decide themselves what is in which dtype.

    Where it is off already nothing is to be done, but for programs that are traced now and may run under autocast.
    """
    if device in WITHOUT_AUTOCAST or not (torch.compiler.is_compiling() or torch.is_autocast_enabled(device)):
        return nullcontext()
    return torch.autocast(device, enabled=False)
