from __future__ import annotations

from typing import Union

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scan_cases import DIRECTIONS, PARAMETERS, WAYS, assert_close, cast, results, ss2d_inputs, ss2d_way
from torch import Tensor

from mmmamba.ops import ss2d_scan
from mmmamba.ops.dispatch import TOLERANCES, Tolerance
from mmmamba.ops.scan.orders import ORDERS, directions_of, scan_order, token_count
from mmmamba.ops.scan.reference import scan as reference_scan
from mmmamba.ops.scan.ss2d_scan import project_on_cpu

PATTERNS = ['cross', 'atrous', DIRECTIONS['windows'], DIRECTIONS['window'], DIRECTIONS['overlapping parts']]
Pattern = Union[str, tuple[str, ...]]
# batch, channels, height, width, states, rank
SHAPES = [
    (1, 1, 1, 1, 1, 1),
    (2, 5, 7, 3, 4, 2),
    (1, 16, 1, 9, 16, 1),
    (1, 17, 9, 1, 8, 3),
    (1, 33, 6, 5, 1, 4),
    (2, 8, 5, 13, 2, 1),
    (1, 24, 4, 17, 32, 2),
    (1, 40, 7, 11, 3, 17),
    (1, 6, 17, 17, 5, 2),
    (1, 768, 3, 4, 1, 48),  # VMamba's last stage
    (0, 4, 3, 3, 2, 1),
    (1, 4, 0, 3, 2, 1),
]


def expected_of(inputs: dict[str, Tensor], pattern: Pattern) -> dict[str, Tensor]:
    scan = ss2d_way('reference')
    return results(lambda **named: scan(**named, pattern=pattern), cast(inputs, torch.float64))


def results_of(way: str, inputs: dict[str, Tensor], pattern: Pattern, autocast: bool = False) -> dict[str, Tensor]:
    scan = ss2d_way(way)
    return results(lambda **named: scan(*named.values(), pattern=pattern), inputs, autocast)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('pattern', PATTERNS)
@pytest.mark.parametrize('way', WAYS)
def test_matches_float64_reference(way, pattern, shape):
    inputs = ss2d_inputs(*shape, count=len(directions_of(pattern)))
    got = results_of(way, cast(inputs, torch.float32), pattern)
    assert_close(got, expected_of(inputs, pattern), TOLERANCES[torch.float32])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(
        st.integers(1, 3),
        st.integers(1, 37),
        st.integers(1, 12),
        st.integers(1, 12),
        st.sampled_from([1, 2, 4, 7, 8, 16, 32]),
        st.integers(1, 5),
    ),
    pattern=st.sampled_from(PATTERNS),
    seed=st.integers(0, 2**31),
)
def test_default_backend_matches_on_random_shapes(shape, pattern, seed):
    inputs = ss2d_inputs(*shape, seed=seed, count=len(directions_of(pattern)))
    single = cast(inputs, torch.float32)
    got = results(lambda **named: ss2d_scan(**named, pattern=pattern), single)
    plain = results(lambda **named: ss2d_scan(**named, pattern=pattern, backend='reference'), single)
    assert_close(got, expected_of(inputs, pattern), TOLERANCES[torch.float32], floor=0.1, plain=plain)


def naive_scan(x: Tensor, k: int, sequence: Tensor, named: dict[str, Tensor]) -> Tensor:
    """Scans a (batch, channels, tokens) sequence with the weights of direction k."""
    channels, states = x.shape[1], named['A_logs'].shape[1]
    rank = named['dt_projs_weight'].shape[2]
    dt, B, C = torch.einsum('bdl,pd->bpl', sequence, named['x_proj_weight'][k]).split([rank, states, states], dim=1)
    delta = torch.einsum('brl,dr->bdl', dt, named['dt_projs_weight'][k])
    own = slice(k * channels, (k + 1) * channels)
    A, D = -named['A_logs'][own].exp(), named['Ds'][own]
    return reference_scan(sequence, delta, A, B[:, None], C[:, None], D, named['dt_projs_bias'][k], True)[0]


def naive_cross(x: Tensor, **named: Tensor) -> Tensor:
    height, width = x.shape[2:]
    y = torch.zeros_like(x)
    for k in range(4):
        seen = x.transpose(2, 3) if k % 2 else x
        sequence = seen.flatten(2).flip(-1) if k >= 2 else seen.flatten(2)
        out = naive_scan(x, k, sequence, named)
        out = (out.flip(-1) if k >= 2 else out).unflatten(2, seen.shape[2:])
        y = y + (out.transpose(2, 3) if k % 2 else out)
    return y


def naive_atrous(x: Tensor, **named: Tensor) -> Tensor:
    height, width = x.shape[2:]
    padded = F.pad(x, (0, width % 2, 0, height % 2))
    y = torch.zeros_like(padded)
    for k, (row, column) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        sub = padded[:, :, row::2, column::2]
        seen = sub.transpose(2, 3) if k % 2 else sub
        out = naive_scan(x, k, seen.flatten(2), named).unflatten(2, seen.shape[2:])
        y[:, :, row::2, column::2] = out.transpose(2, 3) if k % 2 else out
    return y[:, :, :height, :width]


def naive_windows(x: Tensor, **named: Tensor) -> Tensor:
    """'h_flip', 'v', 'w2_flip' and 'w7', pixel by pixel."""
    height, width = x.shape[2:]
    window = lambda side: [  # noqa: E731
        (top + row, left + column)
        for top in range(0, height, side) for left in range(0, width, side)
        for row in range(side) for column in range(side)
    ]
    walks = [
        [(row, column) for row in range(height) for column in range(width)][::-1],
        [(row, column) for column in range(width) for row in range(height)],
        window(2)[::-1],
        window(7),
    ]
    y = torch.zeros_like(x)
    for k, walk in enumerate(walks):
        there = [row < height and column < width for row, column in walk]
        pixels = [x[:, :, row, column] if t else x.new_zeros(x.shape[:2]) for (row, column), t in zip(walk, there)]
        out = naive_scan(x, k, torch.stack(pixels, dim=2), named)
        for step, (row, column) in enumerate(walk):
            if there[step]:
                y[:, :, row, column] += out[:, :, step]
    return y


@pytest.mark.parametrize('direction', ORDERS)
@pytest.mark.parametrize('height, width', [(1, 1), (5, 9), (7, 14), (8, 3), (0, 4)])
def test_an_order_visits_no_pixel_twice(direction, height, width):
    order = scan_order(direction, height, width, torch.device('cpu'))
    assert len(order) == token_count(direction, height, width)
    visited = order[order < height * width]
    assert len(visited.unique()) == len(visited) and (order >= 0).all()
    if ORDERS[direction].parts == 1:
        assert len(visited) == height * width


@pytest.mark.parametrize('naive, pattern', [
    (naive_cross, 'cross'), (naive_atrous, 'atrous'), (naive_windows, ('h_flip', 'v', 'w2_flip', 'w7')),
])
@pytest.mark.parametrize('shape', [(2, 3, 4, 6, 2, 1), (1, 3, 5, 7, 4, 2), (1, 2, 3, 4, 1, 1)], ids=str)
def test_reference_equals_directions_written_out(naive, pattern, shape):
    inputs = ss2d_inputs(*shape)
    got = expected_of(inputs, pattern)
    assert_close(got, results(naive, cast(inputs, torch.float64)), TOLERANCES[torch.float64])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('backend', ['cpu', 'torch', 'reference'])
def test_reduced_precision_inputs(backend, dtype, requires):
    requires(backend)
    inputs = cast(ss2d_inputs(2, 20, 5, 6, 4, 2), dtype)
    got = results_of(backend, inputs, 'cross')
    assert all(value.dtype == dtype for value in got.values())
    assert_close(got, expected_of(inputs, 'cross'), TOLERANCES[dtype])


@pytest.mark.parametrize('backend', ['cpu', 'torch', 'reference'])
def test_autocast_changes_nothing(backend, requires):
    requires(backend)
    inputs = cast(ss2d_inputs(1, 20, 5, 6, 4, 2), torch.float32)
    inputs['x'] = inputs['x'].detach().bfloat16().requires_grad_()  # as from a convolution under autocast
    plain = results_of(backend, inputs, 'cross')
    under = results_of(backend, inputs, 'cross', autocast=True)
    assert under['y'].dtype == torch.bfloat16 and under['grad_A_logs'].dtype == torch.float32
    for name, value in plain.items():
        assert torch.equal(under[name], value), name


@pytest.mark.parametrize('backend', ['torch', 'reference'])
def test_float64(backend):
    inputs = cast(ss2d_inputs(1, 6, 9, 8, 4, 2), torch.float64)
    got = results_of(backend, inputs, 'atrous')
    assert got['y'].dtype == torch.float64
    assert_close(got, expected_of(inputs, 'atrous'), TOLERANCES[torch.float64])


@pytest.mark.parametrize('backend', ['torch', 'reference'])
@pytest.mark.parametrize('pattern', PATTERNS)
def test_gradcheck(backend, pattern):
    inputs = cast(ss2d_inputs(1, 2, 3, 3, 2, 1, count=len(directions_of(pattern))), torch.float64)
    assert torch.autograd.gradcheck(
        lambda *values: ss2d_scan(*values, pattern=pattern, backend=backend), tuple(inputs.values())
    )


@pytest.mark.parametrize('backend', ['cpu', 'torch', 'reference'])
def test_output_is_channels_last_whatever_the_input_is(backend, requires):
    requires(backend)
    inputs = {name: tensor.float() for name, tensor in ss2d_inputs(2, 5, 4, 3, 2, 1).items()}
    y = ss2d_scan(**inputs, backend=backend)
    inputs['x'] = inputs['x'].contiguous(memory_format=torch.channels_last)
    again = ss2d_scan(**inputs, backend=backend)
    assert y.is_contiguous(memory_format=torch.channels_last) and torch.equal(y, again)


@pytest.mark.parametrize('backend', ['cpu', 'torch'])
def test_second_derivative_is_refused(backend, requires):
    requires(backend)
    inputs = cast(ss2d_inputs(1, 2, 3, 3, 2, 1), torch.float32)
    with pytest.raises(RuntimeError, match='no second derivative .* use backend="reference"'):
        torch.autograd.grad(ss2d_scan(**inputs, backend=backend).sum(), inputs['x'], create_graph=True)


@pytest.mark.parametrize('backend', ['cpu', 'torch'])
@pytest.mark.parametrize('name', ['x', *PARAMETERS])
def test_each_input_may_need_a_gradient_alone(backend, name, requires):
    requires(backend)
    inputs = {key: tensor.float() for key, tensor in ss2d_inputs(1, 3, 4, 5, 2, 1).items()}
    inputs[name].requires_grad_()
    ss2d_scan(**inputs, backend=backend).sum().backward()
    assert inputs[name].grad is not None and torch.isfinite(inputs[name].grad).all()


@pytest.mark.parametrize('backend', ['cpu', 'torch', 'reference'])
def test_extreme_inputs_stay_finite(backend, requires):
    """Step sizes of 0 and of hundreds, decays from 1 to 0, under- and overflowing exponents on the way."""
    requires(backend)
    inputs = ss2d_inputs(1, 4, 9, 9, 4, 1)
    inputs['x'] *= 100
    inputs['A_logs'] = torch.linspace(-20, 8, 64, dtype=torch.float64).view(16, 4)
    inputs['dt_projs_bias'] = torch.linspace(-200, 50, 16, dtype=torch.float64).view(4, 4)
    got = results_of(backend, cast(inputs, torch.float32), 'cross')
    assert_close({'y': got['y']}, {'y': expected_of(inputs, 'cross')['y']}, TOLERANCES[torch.float32])
    assert all(torch.isfinite(value).all() for value in got.values())


def test_nan_is_not_hidden():
    inputs = {name: tensor.float() for name, tensor in ss2d_inputs(1, 4, 3, 3, 2, 1).items()}
    inputs['x'][0, 0, 0, 0] = float('nan')
    assert ss2d_scan(**inputs).isnan().all()


@pytest.mark.parametrize('name', PARAMETERS)
def test_wrong_shape_names_the_argument(name):
    inputs = ss2d_inputs(1, 4, 3, 3, 2, 1)
    inputs[name] = inputs[name][:-1]
    with pytest.raises(ValueError, match=f'ss2d_scan: {name} must be'):
        ss2d_scan(**inputs)


def test_bad_arguments():
    inputs = ss2d_inputs(1, 4, 3, 3, 2, 1)
    with pytest.raises(ValueError, match="no pattern named 'zigzag'; it has cross, atrous"):
        ss2d_scan(**inputs, pattern='zigzag')
    with pytest.raises(ValueError, match="no direction named 'w3'; it has h, v, w2"):
        ss2d_scan(**inputs, pattern=('h', 'v', 'w2', 'w3'))
    with pytest.raises(ValueError, match='needs a direction'):
        ss2d_scan(**inputs, pattern=())
    with pytest.raises(ValueError, match=r'x_proj_weight must be \(3, 5, 4\)'):
        ss2d_scan(**inputs, pattern=('h', 'v', 'w2'))
    with pytest.raises(ValueError, match='x must be'):
        ss2d_scan(**{**inputs, 'x': inputs['x'][0]})
    with pytest.raises(ValueError, match='A_logs is complex'):
        ss2d_scan(**{**inputs, 'A_logs': inputs['A_logs'].to(torch.complex128)})
    with pytest.raises(ValueError, match='one is None'):
        ss2d_scan(**{**inputs, 'Ds': None})


def test_projection_is_a_product_of_matrices():
    for batch, pixels, channels in ((2, 9, 8), (1, 1, 8), (2, 7, 1), (0, 9, 8), (2, 0, 8)):
        x = torch.randn(batch, pixels, channels, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(12, channels, dtype=torch.float64, requires_grad=True)
        got, expected = project_on_cpu(x, weight), x @ weight.t()
        assert got.is_contiguous() and got.shape == expected.shape
        incoming = torch.randn_like(expected)
        gradients = zip(*(torch.autograd.grad(y, (x, weight), incoming) for y in (got, expected)))
        assert_close(
            {'y': got, **{f'grad_{i}': pair[0] for i, pair in enumerate(gradients)}},
            {'y': expected, 'grad_0': incoming @ weight, 'grad_1': (incoming.flatten(0, 1).t() @ x.flatten(0, 1))},
            Tolerance(1e-12, 1e-12),
        )
