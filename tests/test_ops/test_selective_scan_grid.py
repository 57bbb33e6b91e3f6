"""The selective scan over the grid of mamba_ssm's own test, at the tolerances of that test."""
from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import cache, partial
from itertools import combinations, product
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.ops import selective_scan

# (rtol, atol) of what has the inputs' dtype, and of the weights' gradients, which are float32.
TOLERANCES = {torch.float32: (6e-4, 2e-3), torch.float16: (3e-3, 5e-3), torch.bfloat16: (3e-2, 5e-2)}
WEIGHTS = (1e-3, 1e-3)
STATES = 8


class Case(NamedTuple):
    """One point of the grid; a group count of 0 stands for B or C of shape (channels, N), constant in time."""

    dtype: torch.dtype
    length: int
    channels: int
    groups: tuple[int, int]
    has_D: bool
    has_z: bool
    has_delta_bias: bool
    softplus: bool

    def __str__(self) -> str:
        return '-'.join(str(value).removeprefix('torch.') for value in self)


LENGTHS, GROUPS = [8, 64, 256, 1024, 4096], [(1, 1), (2, 2), (0, 1), (1, 0), (0, 0)]


def pairs(case: Case) -> set[tuple[int, Hashable, int, Hashable]]:
    return {(i, case[i], j, case[j]) for i, j in combinations(range(len(case)), 2)}


def complete_grid() -> list[Case]:
    """Every dtype with every length and kind of B and C; among the other axes, and with them, every pair of values."""
    others = [*product([4, 24], *[(True, False)] * 4)]
    seen, chosen = set(), []
    for dtype, length, groups in product(TOLERANCES, LENGTHS, GROUPS):
        candidates = [Case(dtype, length, channels, groups, *flags) for channels, *flags in others]
        chosen.append(max(candidates, key=lambda case: len(pairs(case) - seen)))
        seen |= pairs(chosen[-1])
    return chosen


CASES = complete_grid()
# Triton's interpreter takes its time.
SMALL = [
    Case(torch.float32, 8, 4, (1, 1), True, True, True, True),
    Case(torch.float16, 8, 4, (2, 2), True, True, False, True),
    Case(torch.bfloat16, 8, 4, (0, 1), False, True, True, False),
]


def make_inputs(case: Case) -> dict[str, Tensor]:
    """Leaves: sequences in the dtype of the case, weights in float32."""
    generator = torch.Generator().manual_seed(0)
    rand, randn = (partial(make, generator=generator) for make in (torch.rand, torch.randn))
    sequence = (2, case.channels, case.length)

    def matrix(groups: int) -> Tensor:
        if groups == 0:
            return randn(case.channels, STATES)
        shape = (2, STATES, case.length) if groups == 1 else (2, groups, STATES, case.length)
        return randn(shape).to(case.dtype)

    inputs = {
        'u': randn(sequence).to(case.dtype),
        'delta': (0.5 * rand(sequence)).to(case.dtype),
        'A': -0.5 * rand(case.channels, STATES),
        'B': matrix(case.groups[0]),
        'C': matrix(case.groups[1]),
        'D': randn(case.channels) if case.has_D else None,
        'z': randn(sequence).to(case.dtype) if case.has_z else None,
        'delta_bias': 0.5 * rand(case.channels) if case.has_delta_bias else None,
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items() if tensor is not None}


def recurrence(case: Case, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None,
               z: Tensor | None = None, delta_bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The output and the last state, one step after the other; whatever does not depend on the state at once."""
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if case.softplus:
        delta = F.softplus(delta)

    def of_each_channel(matrix: Tensor) -> Tensor:  # (batch, channels, length, N), or of sizes that broadcast to it
        if matrix.dim() == 2:
            return matrix[:, None]
        groups = matrix.unsqueeze(1) if matrix.dim() == 3 else matrix
        return groups.repeat_interleave(case.channels // groups.shape[1], dim=1).mT

    decays = torch.exp(delta[..., None] * A[:, None])
    inputs = (delta * u)[..., None] * of_each_channel(B)
    states = [torch.zeros_like(inputs[:, :, 0])]
    for decay, added in zip(decays.unbind(2), inputs.unbind(2)):
        states.append(decay * states[-1] + added)
    y = (torch.stack(states[1:], dim=2) * of_each_channel(C)).sum(-1)
    if D is not None:
        y = y + D[:, None] * u
    return y if z is None else y * F.silu(z), states[-1]


def run(case: Case, scan: Callable[..., tuple[Tensor, Tensor]], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Output, last state and the gradients of all inputs."""
    out, last_state = scan(**inputs)
    incoming = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(case.dtype).to(out.dtype)
    gradients = torch.autograd.grad(out, list(inputs.values()), incoming)
    return {'out': out.detach(), 'last_state': last_state.detach(), **dict(zip(inputs, gradients))}


@cache
def expected(case: Case) -> dict[str, Tensor]:
    """What float64 gives on the same, already rounded, inputs."""
    inputs = {name: tensor.detach().double().requires_grad_() for name, tensor in make_inputs(case).items()}
    return run(case, partial(recurrence, case), inputs)


def limits(case: Case) -> dict[str, tuple[float, float]]:
    rtol, atol = TOLERANCES[case.dtype]
    weight_rtol, weight_atol = (max(pair) for pair in zip(WEIGHTS, (rtol, atol))) if case.has_z else WEIGHTS
    B, C = ((rtol, atol) if groups else (weight_rtol, weight_atol) for groups in case.groups)
    return {
        'out': (rtol, atol),
        'last_state': (rtol, atol),
        'u': (2 * rtol, 2 * atol),
        'delta': (5 * rtol, 10 * atol),
        'A': (weight_rtol, 5 * weight_atol),
        'B': B,
        'C': C,
        'D': (weight_rtol, weight_atol),
        'z': (weight_rtol, weight_atol),
        'delta_bias': (weight_rtol, weight_atol),
    }


def check(case: Case, backend: str) -> None:
    inputs, limit, truth = make_inputs(case), limits(case), expected(case)
    scan = partial(selective_scan, delta_softplus=case.softplus, return_last_state=True, backend=backend)
    for name, value in run(case, scan, inputs).items():
        dtype = {'out': case.dtype, 'last_state': torch.float32}.get(name) or inputs[name].dtype
        assert value.dtype == dtype, name
        rtol, atol = limit[name]
        torch.testing.assert_close(
            value, truth[name].to(dtype), rtol=rtol, atol=atol, msg=lambda text, name=name: f'{name}: {text}'
        )


@pytest.mark.parametrize('backend', ['cpu', 'torch'])  # one after the other, with the same truth
@pytest.mark.parametrize('case', CASES, ids=str)
def test_grid(backend, case, requires):
    requires(backend)
    check(case, backend)


@pytest.mark.parametrize('case', SMALL, ids=str)
def test_small_shapes_on_triton(case, requires, small_tiling):
    requires('triton')
    check(case, 'triton')
