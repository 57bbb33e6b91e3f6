"""Inputs, ways to run a scan, and one comparison, shared by the tests of both ops."""
from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Callable

import pytest
import torch
from torch import Tensor

from mmmamba.ops import selective_scan, ss2d_scan
from mmmamba.ops.cpu import native, scan
from mmmamba.ops.dispatch import Tolerance
from mmmamba.ops.scan.fused import register
from mmmamba.ops.scan.orders import PATTERNS, directions_of
from mmmamba.ops.scan.selective_scan import fused as selective_fused
from mmmamba.ops.scan.ss2d_scan import fused as ss2d_fused
from mmmamba.ops.scan.ss2d_scan import project_on_cpu

WAYS = ['torch', *(f'cpu-{isa}' for isa in native.ISAS)]
# Directions by the names of the tests: of a sequence, of the known patterns, and of layers with windows, where the
# tokens of the directions differ in number; some leave out pixels that no other visits, or only some that do.
DIRECTIONS = {
    'sequence': ('h',),
    **PATTERNS,
    'windows': ('h_flip', 'v', 'w2_flip', 'w7'),
    'window': ('w7_flip',),
    'two': ('v_flip', 'w2'),
    'parts': ('a01', 'a10_flip'),
    'overlapping parts': ('a11', 'v_flip', 'w2'),
    'parts twice': ('a00', 'a00_flip', 'a11', 'a10'),  # as many visits as pixels
}
PARAMETERS = ('x_proj_weight', 'dt_projs_weight', 'dt_projs_bias', 'A_logs', 'Ds')
# The native scan on one instruction set alone.
SCANS = {
    isa: register(
        f'native_scan_{isa}', partial(scan.forward, isa=isa), partial(scan.backward, isa=isa), scan.states_size
    )
    for isa in native.ISAS
}


def isa_of(way: str) -> str:
    """The instruction set in a way's name; skips the test where this machine or build lacks it."""
    isa = way.split('-')[1]
    if isa not in native.available_isas():
        pytest.skip(f'{isa}: {native.unavailable() or "this machine lacks it"}')
    return isa


def ss2d_way(way: str) -> Callable[..., Tensor]:
    """``ss2d_scan`` on a named backend, or the native kernel on one instruction set."""
    if not way.startswith('cpu-'):
        return partial(ss2d_scan, backend=way)
    isa = isa_of(way)
    return lambda *inputs, pattern: ss2d_fused(SCANS[isa], project_on_cpu, *inputs, directions_of(pattern))


def selective_way(way: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The selective scan and its last state on a named backend, or the native kernel on one instruction set."""
    if not way.startswith('cpu-'):
        return partial(selective_scan, return_last_state=True, backend=way)
    isa = isa_of(way)

    def scan(u, delta, A, B, C, D=None, delta_bias=None, delta_softplus=False):
        return selective_fused(SCANS[isa], u, delta, A, B, C, D, delta_bias, delta_softplus)

    return scan


def ss2d_inputs(
    batch: int, channels: int, height: int, width: int, states: int, rank: int, seed: int = 0, count: int = 4
) -> dict[str, Tensor]:
    """Float64 inputs of ``ss2d_scan``, ``count`` directions, whose steps and decays span what trained models have."""
    make = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {
        'x': make(batch, channels, height, width),
        'x_proj_weight': make(count, rank + 2 * states, channels) / channels**0.5,
        'dt_projs_weight': make(count, channels, rank) / rank**0.5,
        'dt_projs_bias': make(count, channels) - 1,
        'A_logs': make(count * channels, states) / 2,
        'Ds': make(count * channels),
    }


def selective_inputs(
    batch: int, channels: int, length: int, states: int, groups: int, seed: int = 0
) -> dict[str, Tensor]:
    """Float64 inputs of ``selective_scan``, D and delta_bias included."""
    make = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {
        'u': make(batch, channels, length),
        'delta': make(batch, channels, length) - 1,
        'A': -torch.exp(make(channels, states) / 2),
        'B': make(batch, groups, states, length),
        'C': make(batch, groups, states, length),
        'D': make(channels),
        'delta_bias': make(channels),
    }


def cast(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Leaves of the given dtype."""
    return {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in inputs.items()}


def results(
    scan: Callable[..., Tensor | tuple[Tensor, Tensor]], inputs: Mapping[str, Tensor], autocast: bool = False
) -> dict[str, Tensor]:
    """Outputs of ``scan(**inputs)`` and, for a seeded gradient of them, the gradients of all inputs.

    Only the forward pass is under autocast, as PyTorch recommends.
    """
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        outputs = scan(**inputs)
    outputs = {'y': outputs} if isinstance(outputs, Tensor) else dict(zip(('y', 'last_state'), outputs))
    generator = torch.Generator().manual_seed(1)
    differentiable = [output for output in outputs.values() if output.requires_grad]  # no step, no gradient of a state
    # In the coarsest dtype first, so that runs in all of them get the same.
    incoming = [torch.randn(o.shape, generator=generator).bfloat16().to(o.dtype) for o in differentiable]
    gradients = torch.autograd.grad(differentiable, list(inputs.values()), incoming)
    return {**outputs, **{f'grad_{name}': gradient for name, gradient in zip(inputs, gradients)}}


def assert_close(
    got: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: Tolerance, floor: float = 0,
    plain: Mapping[str, Tensor] | None = None
) -> None:
    """Compares by ‖got - expected‖ / ‖expected‖; a failure names the worst element.

    ``floor``: size of elements at least assumed, on average: a gradient that is a single sum may cancel to rounding.
    ``plain``: what the reference gives in the type of ``got``. Where sums cancel, even that may be less exact than the
    tolerance; twice its error is allowed then.
    """
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].shape == value.shape, name
        assert torch.isfinite(got[name]).all(), f'{name} has non-finite elements'
        difference = (got[name].double() - value.double()).detach()
        limit = tolerance.gradient if name.startswith('grad_') else tolerance.forward
        size = value.detach().double().norm().clamp_min(max(floor * value.numel()**0.5, 1e-30))
        error = difference.norm() / size
        if plain is not None:
            limit = max(limit, 2 * ((plain[name].double() - value.double()).norm() / size).item())
        if error > limit:
            worst = tuple(int(i) for i in torch.unravel_index(difference.abs().argmax(), difference.shape))
            raise AssertionError(
                f'{name}: relative error {error:.2e} > {limit:.0e}; worst at {worst}: '
                f'{got[name][worst]:.8g}, expected {value[worst]:.8g}'
            )
