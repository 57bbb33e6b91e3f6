"""The ways to make a two-dimensional scan that are measured side by side, and their agreement with float64."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.shapes import ScanShape
from mmmamba.ops import ss2d_scan
from mmmamba.ops.dispatch import FLOAT32_AND_HALVES, TOLERANCES, Backend, compute_dtype, without_autocast
from mmmamba.ops.scan.orders import directions_of, scan_order
from mmmamba.ops.scan.selective_scan import BACKENDS as SELECTIVE_SCAN
from mmmamba.ops.scan.ss2d_scan import BACKENDS as SS2D_SCAN
from mmmamba.ops.scan.ss2d_scan import unfused

Inputs = Mapping[str, Tensor]
Scan = Callable[..., Tensor]

CROP = 20
"""Side of the map on which a backend has to agree before it is timed.

The recurrence in float64 goes step by step, which takes seconds here. Lines are longer than the longest tile of the
Triton kernels, 16 steps: with shorter ones another variant of them would be checked than is timed. The 400 steps are
several chunks of any kernel, so that carries between chunks and segments are checked too.
"""


def mamba_ssm_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Runs the compiled CUDA scan of the mamba_ssm package; a ``run`` of the selective scan's backends.

    y is in the dtype of ``u``. delta takes that dtype too, and so do B and C unless they are constant.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    D, delta_bias = (None if vector is None else vector.float() for vector in (D, delta_bias))
    B, C = (matrix.to(torch.float32 if matrix.dim() == 2 else u.dtype).contiguous() for matrix in (B, C))
    delta = delta.to(u.dtype).contiguous()
    u, A = u.contiguous(), A.float().contiguous()
    return selective_scan_fn(u, delta, A, B, C, D, None, delta_bias, delta_softplus, return_last_state=True)


def stacked(
    scan: Callable[..., tuple[Tensor, Tensor]],
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    directions: Sequence[str],
) -> Tensor:
    """Gathers the sequences of all directions at once, as public implementations do, and scans them as groups.

    Takes and returns what :func:`mmmamba.ops.scan.ss2d_scan.unfused` does, for directions of as many tokens.
    """
    dtype = compute_dtype(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    x_proj_weight, dt_projs_weight, A_logs = x_proj_weight.to(dtype), dt_projs_weight.to(dtype), A_logs.to(dtype)
    channels, height, width = x.shape[1:]
    states, rank = A_logs.shape[1], dt_projs_weight.shape[2]
    orders = torch.stack([scan_order(direction, height, width, x.device) for direction in directions])
    pixels = F.pad(x.to(dtype).flatten(2), (0, 1))
    sequences = pixels[:, :, orders].transpose(1, 2)  # (batch, directions, channels, tokens)
    projected = torch.einsum('bkdl,kpd->bkpl', sequences, x_proj_weight)
    dt, B, C = projected.split([rank, states, states], dim=2)
    delta = torch.einsum('bkrl,kdr->bkdl', dt, dt_projs_weight)
    y, _ = scan(
        sequences.flatten(1, 2), delta.flatten(1, 2), -torch.exp(A_logs), B, C, Ds, dt_projs_bias.flatten(), True
    )
    y = y.unflatten(1, (len(directions), channels)).transpose(1, 2).flatten(2)
    merged = torch.zeros_like(pixels).index_add(2, orders.flatten(), y)
    return merged[:, :, : height * width].unflatten(2, (height, width))


MAMBA_SSM = Backend(
    name='mamba_ssm',
    run=partial(stacked, mamba_ssm_scan),
    dtypes=FLOAT32_AND_HALVES,
    devices=('cuda',),
    unavailable=lambda: None if find_spec('mamba_ssm') else 'The package mamba_ssm is not installed.',
)


def is_unfused(backend: Backend) -> bool:
    """Returns whether a backend gathers sequences, projects and scans them, and merges the results."""
    return isinstance(backend.run, partial) and backend.run.func in (stacked, unfused)


def contenders() -> dict[str, Backend]:
    """Backends of ``ss2d_scan`` by name, that of mamba_ssm, and the stacked path around each fused selective scan."""
    found = {backend.name: backend for backend in (*SS2D_SCAN, MAMBA_SSM)}
    found.update({
        f'unfused_{backend.name}': replace(backend, name=f'unfused_{backend.name}', run=partial(stacked, backend.run))
        for backend in SELECTIVE_SCAN if not is_unfused(found[backend.name])
    })
    return found


def able(device: torch.device, names: Sequence[str] | None = None) -> dict[str, Backend]:
    """Returns the contenders called ``names``; without names, all that run on ``device`` but the slow reference.

    Raises:
        ValueError: No contender has one of the names, or it cannot run on the device; the message says why.
    """
    sample = [torch.empty(1, device=device)]
    known = contenders()
    if names is None:
        return {name: backend for name, backend in known.items()
                if name != 'reference' and not backend.unsupported_reasons(sample)}
    for name in names:
        if name not in known:
            raise ValueError(f'no backend is called {name!r}; there are {", ".join(known)}')
        if reasons := known[name].unsupported_reasons(sample):
            raise ValueError(f'{name} cannot run: {" ".join(reasons)}')
    return {name: known[name] for name in names}


def as_scan(backend: Backend) -> Scan:
    """Returns a contender as a function like ``ss2d_scan``."""
    if backend in SS2D_SCAN:
        return partial(ss2d_scan, backend=backend.name)

    def scan(x: Tensor, *parameters: Tensor, pattern: str = 'cross') -> Tensor:
        with without_autocast(x.device.type):
            y = backend.run(x, *parameters, directions_of(pattern))
            return y.to(x.dtype).contiguous(memory_format=torch.channels_last)

    return scan


def scan_inputs(shape: ScanShape, batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Makes seeded inputs of ``ss2d_scan``: x in ``dtype`` and channels_last, parameters in float32 as in training."""
    make = partial(torch.randn, device=device, generator=torch.Generator(device).manual_seed(0))
    channels, states, rank = shape.channels, shape.states, shape.rank
    return {
        'x': make(batch, shape.height, shape.width, channels).to(dtype).permute(0, 3, 1, 2),
        'x_proj_weight': make(4, rank + 2 * states, channels) / channels**0.5,
        'dt_projs_weight': make(4, channels, rank) / max(rank, 1)**0.5,
        'dt_projs_bias': make(4, channels) - 1,
        'A_logs': make(4 * channels, states) / 2,
        'Ds': make(4 * channels),
    }


def incoming_gradient(like: Tensor) -> Tensor:
    """Makes a seeded gradient of an output, in its dtype and layout, so that backward need not copy it."""
    generator = torch.Generator(like.device).manual_seed(1)
    values = torch.randn(like.shape, generator=generator, device=like.device)
    return torch.empty_like(like, requires_grad=False).copy_(values)


def with_gradients(scan: Scan, inputs: Inputs, incoming: Tensor | None = None) -> dict[str, Tensor]:
    """Returns y of ``scan`` and the gradients of all inputs, ``grad_NAME``, for an incoming or else a seeded one."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    y = scan(*leaves.values())
    incoming = incoming_gradient(y) if incoming is None else incoming
    gradients = torch.autograd.grad(y, list(leaves.values()), incoming)
    return {'y': y.detach(), **{f'grad_{name}': gradient for name, gradient in zip(leaves, gradients)}}


def relative_errors(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns ‖got - expected‖ / ‖expected‖ of every tensor; NaN where one is not finite."""
    return {
        name: float((got[name].double() - value).norm() / value.norm().clamp_min(1e-30))
        for name, value in expected.items()
    }


def require_agreement(backend: Backend, got: Mapping[str, Tensor], expected: Mapping[str, Tensor],
                      dtype: torch.dtype) -> float:
    """Returns the largest relative error; raises AssertionError if one exceeds the tolerance for ``dtype``."""
    errors = relative_errors(got, expected)
    tolerance = TOLERANCES[dtype]
    for name, error in errors.items():
        limit = tolerance.gradient if name.startswith('grad_') else tolerance.forward
        # Written so that NaN fails.
        assert error <= limit, f'{backend.name}: {name} has a relative error of {error:.1e}, more than {limit:.0e}'
    return max(errors.values())


def gate(backend: Backend, shape: ScanShape, device: torch.device, dtype: torch.dtype) -> float:
    """Compares a crop of a scan, all gradients included, with the recurrence in float64; returns the largest error."""
    crop = shape._replace(height=min(shape.height, CROP), width=min(shape.width, CROP))
    inputs = scan_inputs(crop, 1, device, dtype)
    expected = with_gradients(partial(ss2d_scan, backend='reference'), {k: v.double() for k, v in inputs.items()})
    return require_agreement(backend, with_gradients(as_scan(backend), inputs), expected, dtype)
