"""pointwise_conv and inverted_bottleneck: every backend and instruction set against PyTorch in float64."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from fused_cases import (
    CASES,
    bottleneck_case,
    cast,
    inverted_bottleneck,
    needs_library,
    pointwise_case,
    pointwise_conv,
)
from torch import Tensor

from mmmamba.ops.cpu import native

GATE_ACTIVATIONS = {None: 'silu', 'gelu': None, 'silu': 'relu', 'relu': 'gelu'}  # with another after the product
in_short_types = pytest.mark.parametrize(
    'dtype, tolerance', [(torch.bfloat16, 8e-3), (torch.float16, 1e-3)], ids=str)
WAYS = ('torch', 'passes', *(f'cpu-{isa}' for isa in native.ISAS))
# Odd channels, fewer than a vector has lanes, more than a panel of weights; maps of a pixel, a row, a column.
SHAPES = [(1, 3, 5, 1, 1), (2, 17, 33, 1, 5), (2, 8, 16, 7, 1), (1, 32, 85, 5, 4), (2, 50, 70, 9, 18),
          (1, 5, 49, 23, 2)]


def scaled(case: dict) -> dict:
    """The same with weights of convolutions that keep what they sum as large as it was: float16 ends at 65504."""
    return {name: value / value[0].numel()**0.5 if 'weight' in name and 'norm' not in name else value
            for name, value in case.items()}


def run_on(way: str, op: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """``op`` on the backend, and the instruction set, that ``way`` names."""
    backend, _, isa = way.partition('-')
    if backend == 'cpu':
        if isa not in native.available_isas():
            pytest.skip(f'no {isa} here')
        monkeypatch.setattr(native, 'available_isas', lambda: (isa, ))
    return partial(op, backend=backend)


def error(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape and got.isfinite().all()
    return ((got - expected).norm() / expected.norm()).item()


@pytest.fixture(autouse=True)
def seeded_and_poisoned(poisoned_memory):
    torch.manual_seed(0)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('op, parts', CASES, ids=lambda value: getattr(value, '__name__', value))
@pytest.mark.parametrize('activation', [None, 'gelu', 'silu', 'relu'])
@torch.no_grad()
def test_results_equal_those_in_double_precision(way, op, parts, activation, monkeypatch):
    run = run_on(way, op, monkeypatch)
    for shape in SHAPES:
        case = dict(CASES[op, parts](*shape), activation=activation)
        if op is pointwise_conv:
            case.update(gate_activation=GATE_ACTIVATIONS[activation])
        expected = op(**case, backend='torch')
        assert error(run(**cast(case, torch.float32)), expected) < 2e-6, shape


@pytest.mark.parametrize('way', WAYS[1:])
@pytest.mark.parametrize('op, parts', CASES, ids=lambda value: getattr(value, '__name__', value))
@in_short_types
@torch.no_grad()
def test_short_types(way, op, parts, dtype, tolerance, monkeypatch):
    run = run_on(way, op, monkeypatch)
    for shape in SHAPES:
        case = scaled(cast(CASES[op, parts](*shape), dtype))
        got = run(**case, activation='gelu')
        assert got.dtype == dtype
        assert error(got, op(**cast(case, torch.float64), activation='gelu', backend='torch')) < tolerance, shape


@pytest.mark.parametrize('way', WAYS[2:])
@pytest.mark.parametrize('op, parts', CASES, ids=lambda value: getattr(value, '__name__', value))
@in_short_types
@torch.no_grad()
def test_maps_of_another_type_than_the_weights(way, op, parts, dtype, tolerance, monkeypatch):
    run = run_on(way, op, monkeypatch)
    for shape in ((2, 17, 33, 3, 5), (2, 50, 70, 9, 18)):
        case = scaled(cast(CASES[op, parts](*shape), dtype))
        expected = op(**cast(case, torch.float64), backend='torch')
        for names in (('x',), ('gate',), ('x', 'gate', 'residual'), ('residual', 'norm_weight', 'bias')):
            mixed = {name: value.float() if name in names and value is not None else value
                     for name, value in case.items()}
            got = run(**mixed)
            added = 'residual' in names and 'residual' in case
            assert got.dtype == (torch.float32 if added else dtype)
            assert error(got, expected) < tolerance, (shape, names)


@needs_library
@torch.no_grad()
def test_norms_see_float32_maps_before_they_are_rounded():
    """A mean of 1000 and a deviation of 1: rounded to bfloat16 first, nothing would be left."""
    case = scaled(cast(pointwise_case(2, 17, 33, 3, 5, 'bnpm'), torch.float32))
    case.update(x=1000 + torch.randn(2, 17, 3, 5), gate=1000 + torch.randn(2, 33, 3, 5))
    expected = pointwise_conv(**cast(case, torch.float64), backend='torch')
    with torch.autocast('cpu', torch.bfloat16):
        assert error(pointwise_conv(**case, backend='cpu'), expected) < 8e-3


@needs_library
@torch.no_grad()
def test_pixels_at_an_odd_element_of_memory():
    case = scaled(cast(pointwise_case(2, 16, 33, 9, 7, ''), torch.bfloat16))
    memory = torch.zeros(1 + case['x'].numel(), dtype=torch.bfloat16)
    shifted = memory[1:].view(2, 9, 7, 16).permute(0, 3, 1, 2).copy_(case['x'])
    assert shifted.is_contiguous(memory_format=torch.channels_last) and shifted.data_ptr() % 4 == 2
    assert torch.equal(pointwise_conv(**{**case, 'x': shifted}), pointwise_conv(**case))


@pytest.mark.parametrize('op, parts', CASES, ids=lambda value: getattr(value, '__name__', value))
@torch.no_grad()
def test_any_layout_of_memory(op, parts):
    case = cast(CASES[op, parts](2, 6, 20, 5, 7), torch.float32)
    expected = op(**case)

    def stretched(tensor: Tensor) -> Tensor:  # every second element of a larger tensor, another layout for maps
        return tensor.repeat_interleave(2, dim=-1)[..., ::2]

    strided = {name: stretched(value) if isinstance(value, Tensor) else value for name, value in case.items()}
    torch.testing.assert_close(op(**strided), expected)


@pytest.mark.parametrize('op, parts', CASES, ids=lambda value: getattr(value, '__name__', value))
@pytest.mark.parametrize('shape', [(0, 6, 20, 5, 7), (2, 6, 20, 0, 7), (2, 6, 20, 5, 0)])
@torch.no_grad()
def test_empty_maps(op, parts, shape):
    case = cast(CASES[op, parts](*shape), torch.float32)
    assert op(**case).numel() == 0


@pytest.mark.parametrize('values', [torch.linspace(-40, 40, 4001), torch.tensor([0.0, -0.0, 1e30, 3e38])])
@torch.no_grad()
def test_activations_alone(values, monkeypatch):
    for way in WAYS[1:]:
        with monkeypatch.context() as patch:
            if way.partition('-')[2] not in native.available_isas():
                continue
            run = run_on(way, pointwise_conv, patch)
            for name, exact in (('gelu', torch.nn.functional.gelu), ('silu', torch.nn.functional.silu)):
                got = run(values.view(-1, 1, 1, 1), torch.ones(1, 1, 1, 1), activation=name).flatten()
                expected = exact(values.double())
                bound = 2e-7 * (1 + values.abs().clamp(max=1e30)).double()
                assert ((got - expected).abs() <= bound.clamp(min=1e-7) + 3e-7 * expected.abs()).all(), (way, name)


@torch.no_grad()
def test_activations_far_below_zero_vanish(monkeypatch):
    values = torch.tensor([-100, -1e5, -1e30, -1e35, -3e38]).view(-1, 1, 1, 1)
    for way in WAYS[1:]:
        with monkeypatch.context() as patch:
            if way.partition('-')[2] not in native.available_isas():
                continue
            run = run_on(way, pointwise_conv, patch)
            for name in ('gelu', 'silu', 'relu'):
                got = run(values, torch.ones(1, 1, 1, 1), activation=name)
                assert (got.abs() < 1e-30).all(), (way, name)


@needs_library
@torch.no_grad()
def test_no_hidden_channels_are_refused():
    with pytest.raises(ValueError, match='there are no hidden channels'):
        inverted_bottleneck(**cast(bottleneck_case(2, 6, 0, 4, 3, 'br'), torch.float32), backend='cpu')


@torch.no_grad()
def test_what_is_not_finite_stays_so():
    values = torch.tensor([float('nan'), float('inf')]).view(2, 1, 1, 1)
    for activation in (None, 'gelu', 'silu', 'relu'):
        out = pointwise_conv(values, torch.ones(1, 1, 1, 1), activation=activation).flatten()
        assert out[0].isnan() and out[1] == float('inf'), activation


@needs_library
@pytest.mark.parametrize('op, parts', CASES, ids=lambda value: getattr(value, '__name__', value))
@pytest.mark.parametrize('backend', ['cpu', 'passes'])
@torch.no_grad()
def test_autocast(op, parts, backend):
    case = scaled(cast(CASES[op, parts](2, 17, 33, 3, 5), torch.float32))
    expected = op(**cast(case, torch.float64), backend='torch')
    for dtype, tolerance in ((torch.bfloat16, 8e-3), (torch.float16, 1e-3)):
        with torch.autocast('cpu', dtype):
            got = op(**case, backend=backend)
            with torch.autocast('cpu', enabled=False):
                assert op(**case, backend=backend).dtype == torch.float32
        # A float32 residual stays so, as PyTorch has it.
        assert got.dtype == (torch.float32 if 'residual' in case else dtype)
        assert error(got, expected) < tolerance


@torch.no_grad()
def test_float64_takes_pytorch():
    case = pointwise_case(1, 6, 8, 3, 4, 'bn')
    assert pointwise_conv(**case).dtype == torch.float64
    with pytest.raises(RuntimeError, match='cpu: .*It does not take torch.float64'):
        pointwise_conv(**case, backend='cpu')


@needs_library
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_results_do_not_depend_on_threads(dtype):
    case = cast(bottleneck_case(2, 6, 20, 37, 7, 'bnsrg+'), dtype)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 64):
            torch.set_num_threads(threads)
            results.append(inverted_bottleneck(**case, activation='gelu', backend='cpu'))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)
