"""The selective scan over the grid of mamba_ssm's own test, at the tolerances of that test."""
from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache, partial
from itertools import combinations, product
from typing import NamedTuple

import pytest
import torch
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


def pairwise(axes: Sequence[Sequence[Hashable]]) -> list[Case]:
    """A few of all combinations, in which every pair of values of two axes occurs."""
    every = {
        row: {(i, row[i], j, row[j]) for i, j in combinations(range(len(row)), 2)} for row in product(*axes)
    }
    missing, chosen = set().union(*every.values()), []
    while missing:
        best = max(every, key=lambda row: len(every[row] & missing))
        missing -= every[best]
        chosen.append(Case(*best))
    return chosen


FLAGS = [(True, False)] * 4
GROUPS = [(1, 1), (2, 2), (0, 1), (1, 0), (0, 0)]
CASES = pairwise([list(TOLERANCES), [8, 64, 256, 1024, 4096], [4, 24], GROUPS, *FLAGS])
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


def run(case: Case, inputs: Mapping[str, Tensor], backend: str) -> dict[str, Tensor]:
    """Output, last state and the gradients of all inputs."""
    out, last_state = selective_scan(
        **inputs, delta_softplus=case.softplus, return_last_state=True, backend=backend
    )
    incoming = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(case.dtype).to(out.dtype)
    gradients = torch.autograd.grad(out, list(inputs.values()), incoming)
    return {'out': out.detach(), 'last_state': last_state.detach(), **dict(zip(inputs, gradients))}


@cache
def expected(case: Case) -> dict[str, Tensor]:
    """What float64 gives on the same, already rounded, inputs."""
    inputs = {name: tensor.detach().double().requires_grad_() for name, tensor in make_inputs(case).items()}
    return run(case, inputs, 'reference')


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
    for name, value in run(case, inputs, backend).items():
        dtype = {'out': case.dtype, 'last_state': torch.float32}.get(name) or inputs[name].dtype
        assert value.dtype == dtype, name
        rtol, atol = limit[name]
        torch.testing.assert_close(
            value, truth[name].to(dtype), rtol=rtol, atol=atol, msg=lambda text, name=name: f'{name}: {text}'
        )


@pytest.mark.parametrize('case', CASES, ids=str)
@pytest.mark.parametrize('backend', ['cpu', 'torch'])
def test_grid(backend, case, requires):
    requires(backend)
    check(case, backend)


@pytest.mark.parametrize('case', SMALL, ids=str)
def test_small_shapes_on_triton(case, requires, small_tiling):
    requires('triton')
    check(case, 'triton')
