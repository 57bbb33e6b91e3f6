"""The one FLOP counter: parameters and FLOPs of a model by module, the scans' in a column of their own.

Convolutions and matrix products are counted by PyTorch's ``FlopCounterMode``, scans by the formula that belongs to the
op (:func:`mmmamba.ops.scan.fused.scan_flops`) and without computing them, so that the count depends on no backend.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from functools import partial
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from mmmamba.ops.scan import selective_scan, ss2d_scan
from mmmamba.ops.scan.fused import scan_flops, token_counts

_COUNTING = RLock()

Report = Callable[[int, int], None]
"""Called with the FLOPs of a scan's projections and of its recurrence."""


@dataclass(frozen=True)
class Cost:
    """What a module costs in one forward pass. Norms, activations, pooling and interpolation are in no column.

    Attributes:
        parameters: Numbers of its parameters, frozen ones included.
        linear_flops: FLOPs of convolutions, linear layers and matrix products, 2 per multiply-add.
        projection_flops: Of these, what SS2D's scans take to make step, B and C of every token. Mamba YOLO's published
            table leaves them out; VMamba's counts them.
        scan_flops: FLOPs of the scans, see :func:`mmmamba.ops.scan.fused.scan_flops`. Mamba YOLO's published table
            leaves these out as well.
    """

    parameters: int = 0
    linear_flops: int = 0
    projection_flops: int = 0
    scan_flops: int = 0

    @property
    def convention_flops(self) -> int:
        """Returns what Mamba YOLO's published table counts: convolutions and linear layers alone."""
        return self.linear_flops - self.projection_flops

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other))))


@dataclass(frozen=True)
class ModelCost:
    """Costs by module.

    Attributes:
        own: What each module costs itself, its children excluded, by qualified name; ``''`` is the model. A module
            that the model holds twice has its first name.
    """

    own: dict[str, Cost]

    @property
    def total(self) -> Cost:
        return self.part('')

    def part(self, name: str) -> Cost:
        """Returns the cost of a module with all that is in it."""
        inside = (cost for other, cost in self.own.items() if not name or f'{other}.'.startswith(f'{name}.'))
        return sum(inside, Cost())

    def parts(self, depth: int = 1) -> dict[str, Cost]:
        """Returns modules at most ``depth`` names deep that cost something, in the model's order; not the model."""
        parts = {name: self.part(name) for name in self.own if name and name.count('.') < depth}
        return {name: cost for name, cost in parts.items() if cost != Cost()}


def count_flops(model: nn.Module, *args: Any, **kwargs: Any) -> ModelCost:
    """Counts ``model(*args, **kwargs)`` in eval mode, without gradients.

    Convolutions and matrix products are counted where they are computed, whichever function called them; those of
    attention, fused or not, are its two products and its projections. Scans are counted by formula and not computed,
    so the model's outputs mean nothing.
    """
    return count_run(model, partial(model, *args, **kwargs))


def count_run(model: nn.Module, run: Callable[[], Any]) -> ModelCost:
    """Counts ``run()``, which calls ``model`` or its modules, as :func:`count_flops` does."""
    own = {name: Cost() for name, _ in model.named_modules()}
    for name, parameter in model.named_parameters():
        own[name.rpartition('.')[0]] += Cost(parameters=parameter.numel())

    stack = ['']
    formulas = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    counted = 0

    def settle() -> None:
        """Books what was counted since the last time on the innermost module that runs."""
        nonlocal counted
        total = counter.get_total_flops()
        own[stack[-1]] += Cost(linear_flops=total - counted)
        counted = total

    def enter(name: str) -> None:
        settle()
        stack.append(name)

    def leave() -> None:
        settle()
        stack.pop()

    def report(projections: int, scan: int) -> None:
        own[stack[-1]] += Cost(linear_flops=projections, projection_flops=projections, scan_flops=scan)

    with _inference_mode(model), _hooked(model, enter, leave), torch.no_grad(), _fused_layers_taken_apart(), \
            _scans_reported(report), counter:
        run()
    settle()
    return ModelCost(own)


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Applies the formula that PyTorch has for the fused attention of GPUs, but not for that of CPUs."""
    return sdpa_flop_count(query, key, value)


@contextmanager
def _hooked(model: nn.Module, enter: Callable[[str], None], leave: Callable[[], None]) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: enter(name)))
        handles.append(module.register_forward_hook(lambda *_: leave()))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _fused_layers_taken_apart() -> Iterator[None]:
    """Keeps PyTorch's attention and transformer layers off their inference path, one operator without a formula."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def _inference_mode(model: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    # A part of a parameter, by torch.split, wants a gradient even under no_grad, and PyTorch's counter trips over it.
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def _scans_reported(report: Report) -> Iterator[None]:
    """Has every scan report its FLOPs and return zeros, whichever backend a layer was told to take.

    The tables of backends are exchanged for that time, in the whole process: no other thread may scan meanwhile, and
    counts in several threads wait for each other.
    """

    def ss2d(x: Tensor, x_proj_weight: Tensor, dt_projs_weight: Tensor, *args: Any) -> Tensor:
        (batch, channels, height, width), (_, _, rank) = x.shape, dt_projs_weight.shape
        states = (x_proj_weight.shape[1] - rank) // 2
        tokens = token_counts(args[-1], height * width, width)
        # The matrix products that make step, B and C, of which padding needs none: 2 per multiply-add.
        projected = sum(min(count, height * width) for count in tokens)
        projections = 2 * batch * projected * channels * (rank + 2 * states + rank)
        report(projections, scan_flops(batch, sum(tokens), channels, states))
        return torch.zeros_like(x)

    def selective(u: Tensor, delta: Tensor, A: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        batch, channels, length = u.shape
        report(0, scan_flops(batch, length, channels, A.shape[1]))
        return torch.zeros_like(u), u.new_zeros(batch, *A.shape)

    runs: tuple[tuple[Any, Callable[..., Any]], ...] = ((ss2d_scan, ss2d), (selective_scan, selective))
    with _COUNTING:
        computing = [op.BACKENDS for op, _ in runs]
        for op, run in runs:
            # Under every name that a layer may have been told, so that none of them refuses the device.
            op.BACKENDS = tuple(replace(backend, run=run, devices=None, unavailable=None) for backend in op.BACKENDS)
        try:
            yield
        finally:
            for (op, _), backends in zip(runs, computing):
                op.BACKENDS = backends
