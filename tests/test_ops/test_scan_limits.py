"""What is not a number, infinite, empty or growing, on every backend, against the recurrence in float64."""
from __future__ import annotations

from functools import cache, partial
from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scan_cases import WAYS, assert_close, cast, results, selective_inputs, selective_way, ss2d_inputs, ss2d_way

from mmmamba.ops import selective_scan, ss2d_scan
from mmmamba.ops.dispatch import FLOAT32_AND_HALVES, TOLERANCES, Tolerance

pytestmark = pytest.mark.usefixtures('small_tiling')

EVERY = [*WAYS, 'triton']
# Quiet and signalling, of both signs, and the one that CUDA makes.
NANS = [0x7FC00000, 0x7FFFFFFF, 0x7FC00001, 0x7F800001, 0x7FBFFFFF, 0xFFFFFFFF, 0xFF800001]
FORMS = ['one group', 'groups', 'constant']


def nans_of(way: str) -> list[int]:
    """What is tried in a way; Triton's interpreter takes its time, and its kernels add no integers to floats."""
    return NANS[1:2] if way == 'triton' else NANS


def not_a_number(bits: int) -> torch.Tensor:
    return torch.tensor([bits - 2**32 if bits >= 2**31 else bits], dtype=torch.int32).view(torch.float32)


@pytest.fixture
def way_of(requires):
    """``selective_scan`` in a way, where that runs here."""

    def get(way: str):
        if not way.startswith('cpu-'):
            requires(way)
        return selective_way(way)

    return get


def matrix(form: str, batch: int, groups: int, group_size: int, states: int, length: int, seed: int) -> torch.Tensor:
    make = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if form == 'constant':
        return make(groups * group_size, states)
    return make(batch, groups if form == 'groups' else 1, states, length)


def as_one_form(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """B and C with as many groups, as backends want them, but for constants."""
    groups = max((inputs[name].shape[1] for name in 'BC' if inputs[name].dim() == 4), default=1)
    repeated = {
        name: inputs[name].repeat_interleave(groups // inputs[name].shape[1], dim=1)
        for name in 'BC' if inputs[name].dim() == 4
    }
    return {**inputs, **repeated}


def per_channel(constant_or_not: torch.Tensor, batch: int, channels: int, length: int) -> torch.Tensor:
    """B or C as every channel sees it: (batch, channels, N, length)."""
    if constant_or_not.dim() == 2:
        return constant_or_not[None, :, :, None].expand(batch, -1, -1, length)
    return constant_or_not.repeat_interleave(channels // constant_or_not.shape[1], dim=1)


@pytest.mark.parametrize('C', FORMS)
@pytest.mark.parametrize('B', FORMS)
@pytest.mark.parametrize('way', ['reference', *EVERY])
def test_constant_matrices(way, B, C, way_of):
    """As a group for each channel with the same matrix in every step; the states after the last step too."""
    # Two chunks, of which the last is not full, are enough for Triton's interpreter, which takes its time.
    scan, (batch, length) = way_of(way), (1, 9) if way == 'triton' else (2, 19)
    sizes = batch, 2, 5, 3, length
    inputs = selective_inputs(batch, 10, length, 3, 1)
    inputs = as_one_form({**inputs, 'B': matrix(B, *sizes, seed=1), 'C': matrix(C, *sizes, seed=2)})

    def expanded(B, C, **others):
        B, C = (per_channel(given, batch, 10, length) for given in (B, C))
        return selective_way('reference')(B=B, C=C, **others, delta_softplus=True)

    got = results(partial(scan, delta_softplus=True), cast(inputs, torch.float32))
    assert_close(got, results(expanded, cast(inputs, torch.float64)), TOLERANCES[torch.float32])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('way', ['reference', *EVERY])
def test_constant_matrices_of_short_types(way, dtype, way_of):
    inputs = selective_inputs(1, 9, 12, 2, 1)
    inputs = cast({**inputs, 'B': inputs['A'] + 1, 'C': inputs['A'] - 1}, dtype)
    got = results(partial(way_of(way), delta_softplus=True), inputs)
    assert all(got[f'grad_{name}'].dtype == dtype for name in inputs)
    expected = results(partial(selective_way('reference'), delta_softplus=True), cast(inputs, torch.float64))
    assert_close(got, expected, TOLERANCES[dtype])


@pytest.mark.parametrize('forms', [('constant', 'constant'), ('constant', 'groups'), ('one group', 'groups')], ids=str)
@pytest.mark.parametrize('backend', ['cpu', 'torch', 'reference', 'triton'])
def test_gradients_of_short_types_are_rounded_once(backend, forms, requires):
    """As those of the same numbers in float32, rounded: a gradient that is a sum is not one of rounded parts."""
    requires(backend)
    inputs = selective_inputs(2, 6, 9, 2, 3)
    inputs |= {name: matrix(form, 2, 3, 2, 2, 9, seed=1) for name, form in zip('BC', forms)}
    inputs = cast(inputs, torch.bfloat16)
    scan = partial(selective_scan, delta_softplus=True, return_last_state=True, backend=backend)
    short, long = results(scan, inputs), results(scan, cast(inputs, torch.float32))
    for name in ('grad_B', 'grad_C'):
        torch.testing.assert_close(short[name], long[name].bfloat16(), rtol=2**-7, atol=1e-5)


@pytest.mark.parametrize('C', FORMS)
@pytest.mark.parametrize('B', FORMS)
@pytest.mark.parametrize('sizes', [(0, 2, 3, 5), (2, 2, 0, 5), (2, 2, 3, 0)], ids=str)
@pytest.mark.parametrize('backend', ['cpu', 'torch', 'reference', 'triton'])
def test_nothing_to_scan(backend, sizes, B, C, requires):
    requires(backend)
    batch, groups, group_size, length = sizes
    inputs = selective_inputs(batch, groups * group_size, length, 4, groups)
    inputs |= {name: matrix(form, batch, groups, group_size, 4, length, 0) for name, form in (('B', B), ('C', C))}
    inputs = cast(inputs, torch.float32)
    y, last_state = selective_scan(**inputs, return_last_state=True, backend=backend)
    assert y.shape == inputs['u'].shape
    assert last_state.shape == (batch, groups * group_size, 4) and not last_state.any()
    assert not any(gradient.any() for gradient in torch.autograd.grad(y.sum(), list(inputs.values())))


def with_a_nan(name: str, bits: int) -> dict[str, torch.Tensor]:
    """Inputs of a selective scan with one NaN in the named one, which may be a 'constant B' or a 'constant C'."""
    inputs = {key: value.float() for key, value in selective_inputs(1, 10, 9, 3, 2).items()}
    if name.startswith('constant'):
        inputs[name[-1]] = inputs['A'] + 1
    inputs[name[-1] if name.startswith('constant') else name].view(-1)[5:6] = not_a_number(bits)
    return inputs


@cache
def nans_in_float64(name: str, softplus: bool) -> dict[str, torch.Tensor]:
    inputs = cast(with_a_nan(name, NANS[0]), torch.float64)
    expected = results(partial(selective_way('reference'), delta_softplus=softplus), inputs)
    return {part: value.isnan() for part, value in expected.items()}


NAMES = ['u', 'delta', 'A', 'B', 'C', 'D', 'delta_bias', 'constant B', 'constant C']


@pytest.mark.parametrize('way, softplus, name', [
    *product(WAYS, [False, True], NAMES),
    # Softplus is a branch of Triton's kernels that takes the step sizes alone.
    *product(['triton'], [True], NAMES), *product(['triton'], [False], ['delta', 'delta_bias']),
])
def test_not_a_number_spreads_as_in_float64(way, softplus, name, way_of):
    scan = partial(way_of(way), delta_softplus=softplus)
    for bits in nans_of(way):
        got = results(scan, cast(with_a_nan(name, bits), torch.float32))
        for part, expected in nans_in_float64(name, softplus).items():
            assert got[part].isnan()[expected].all(), f'{part}, {bits:x}'
            extra = got[part].isnan() & ~expected
            # In padding, a kernel may multiply zero by a NaN in A.
            allowed = way == 'triton' and name == 'A' and part.startswith('grad_')
            assert allowed or not extra.any(), f'{part}, {bits:x}'


@pytest.mark.parametrize('name', list(ss2d_inputs(1, 1, 1, 1, 1, 1)))
@pytest.mark.parametrize('way', EVERY)
def test_not_a_number_spreads_over_a_map(way, name, requires):
    if not way.startswith('cpu-'):
        requires(way)
    for bits in nans_of(way):
        inputs = {key: value.float() for key, value in ss2d_inputs(1, 5, 3, 4, 2, 1).items()}
        inputs[name].view(-1)[2:3] = not_a_number(bits)
        got = ss2d_way(way)(*inputs.values(), pattern='cross')
        expected = ss2d_scan(**{key: value.double() for key, value in inputs.items()}, backend='reference')
        assert torch.equal(got.isnan(), expected.isnan()), f'{bits:x}'


LIMITS = {
    'infinitely strong decay': {'A': -torch.inf},
    'no decay': {'A': 0.0},
    'decay beyond float32': {'A': -1e30},
    'decay of a denormal number': {'A': -1e-40},
    'infinite step': {'delta': torch.inf},
    'huge step': {'delta': 1e30},
    'zero step': {'delta': 0.0},
    'negative zero': {'delta': -0.0, 'u': -0.0},
    'infinite input': {'u': torch.inf},
}


@pytest.mark.parametrize('softplus', [False, True])
@pytest.mark.parametrize('limit', LIMITS)
@pytest.mark.parametrize('way', EVERY)
def test_limits_of_the_domain(way, limit, softplus, way_of):
    """Outputs as float64 has them: finite, infinite or not a number. Neither channels nor states disturb others."""
    length = 11 if way == 'triton' else 21  # two chunks there, which its interpreter takes its time for
    inputs = {name: value.float() for name, value in selective_inputs(1, 10, length, 3, 1).items() if name != 'D'}
    inputs['delta'] = inputs['delta'].abs() + 0.1
    inputs['delta_bias'] = inputs['delta_bias'] * 0
    for name, value in LIMITS[limit].items():
        inputs[name].view(-1)[8::47] = value
    got = way_of(way)(**inputs, delta_softplus=softplus)
    doubles = {name: value.double() for name, value in inputs.items()}
    for result, expected in zip(got, selective_way('reference')(**doubles, delta_softplus=softplus)):
        torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-5, equal_nan=True)


def growing(growth: float, length: int) -> dict[str, torch.Tensor]:
    """Inputs of a selective scan whose states are zero until the last twenty steps, and would grow."""
    inputs = {name: value.float() for name, value in selective_inputs(1, 3, length, 2, 1).items() if name != 'D'}
    inputs['u'][..., : length - 20] = 0
    inputs['delta'], inputs['delta_bias'] = torch.ones_like(inputs['delta']), torch.zeros(3)
    inputs['A'] = torch.full((3, 2), growth)
    return inputs


@cache
def growth_in_float64(growth: float, length: int) -> dict[str, torch.Tensor]:
    return results(selective_way('reference'), cast(growing(growth, length), torch.float64))


@pytest.mark.parametrize('growth', [0.02, 0.3, 1.0])
@pytest.mark.parametrize('way, threads', [*product(WAYS, [1, 3]), ('triton', 1)])
def test_growth_from_nothing(way, threads, growth, way_of):
    """Over chunks and segments, what grows by more than float32 holds leaves a zero state zero."""
    before, scan = torch.get_num_threads(), way_of(way)
    torch.set_num_threads(threads)
    try:
        length = 120 if way == 'triton' else 600  # many chunks of either
        got, expected = results(scan, cast(growing(growth, length), torch.float32)), growth_in_float64(growth, length)
        for part in ('y', 'last_state', 'grad_C'):  # growth gathers the errors of its steps, see the README
            assert_close({part: got[part]}, {part: expected[part]}, Tolerance(1e-5, 1e-5))
    finally:
        torch.set_num_threads(before)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), sizes=st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(0, 19), st.integers(0, 150)),
       states=st.integers(1, 33), forms=st.tuples(st.sampled_from(FORMS), st.sampled_from(FORMS)),
       dtype=st.sampled_from(FLOAT32_AND_HALVES), seed=st.integers(0, 2**31))
@pytest.mark.parametrize('way', WAYS)
def test_random_scans(way, data, sizes, states, forms, dtype, seed, way_of):
    """Any sizes, forms and types, with or without a number that is none."""
    batch, groups, group_size, length = sizes
    inputs = selective_inputs(batch, groups * group_size, length, states, groups, seed)
    inputs |= {name: matrix(form, batch, groups, group_size, states, length, seed) for name, form in zip('BC', forms)}
    inputs = {name: value.to(dtype) for name, value in as_one_form(inputs).items()}
    poisoned = data.draw(st.sampled_from([None, *(name for name in inputs if inputs['u'].numel())]))
    if poisoned:
        place = data.draw(st.integers(0, inputs[poisoned].numel() - 1))
        inputs[poisoned].view(-1)[place] = not_a_number(data.draw(st.sampled_from(NANS))).to(dtype)

    def rounded(**named):
        """The recurrence, its y of the same type, so that both runs get the same gradient of it."""
        y, last_state = selective_way('reference')(**named, delta_softplus=True)
        return y.to(dtype), last_state

    got = results(partial(way_of(way), delta_softplus=True), cast(inputs, dtype))
    expected = results(rounded, cast(inputs, torch.float64))
    for name, value in expected.items():
        assert got[name].isnan()[value.isnan()].all(), name
        assert name.startswith('grad_') or torch.equal(got[name].isnan(), value.isnan()), name
    either = {name: got[name].isnan() | value.isnan() for name, value in expected.items()}
    numbers = ({name: value.masked_fill(either[name], 0) for name, value in all_.items()} for all_ in (got, expected))
    assert_close(*numbers, TOLERANCES[dtype], floor=0.1)
