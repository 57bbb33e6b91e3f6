"""The Triton kernels in Triton's interpreter, against the recurrence in float64."""
from __future__ import annotations

from functools import partial
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scan_cases import DIRECTIONS, assert_close
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmmamba.ops.dispatch import TOLERANCES
from mmmamba.ops.scan import reference
from mmmamba.ops.scan.fused import ScanInputs
from mmmamba.ops.scan.orders import scan_order
from mmmamba.ops.triton import scan
from mmmamba.ops.triton.geometry import Geometry, geometry
from mmmamba.ops.triton.scan import unavailable
from mmmamba.ops.triton.tiling import Tiling

if unavailable() is None:
    from triton.runtime.interpreter import InterpreterOptions, interpreter_builder

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

INPUTS = ('x', 'projected', 'delta', 'dt_weight', 'bias', 'A', 'D', 'W')
# Shapes of the tests cross every border: of tiles, chunks, blocks of channels, splits, programs, rows of the carry.
SMALL = Tiling(chunk=8, tile=4, block=8, carry_rows=2, splits=2, programs=8)
# The stages of Mamba YOLO T, B and L at 640², (channels, side of the map).
STAGES = [(c << i, 160 >> i) for c in (64, 128) for i in range(4)] + [(192, 160), (384, 80), (768, 40), (1152, 20)]


def make(pattern, batch, height, width, channels, states, rank, groups=1, without=('W',), seed=0):
    """Float64 inputs by name; ``rank`` 0 for given step sizes."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    heads = groups * len(DIRECTIONS[pattern])
    pixels = height * width
    inputs = {
        'x': draw(batch, pixels, groups * channels),
        'projected': draw(batch, pixels, heads, rank + 2 * states),
        'delta': None if rank else draw(batch, pixels, groups * channels) - 1,
        'dt_weight': draw(heads, channels, rank) / rank**0.5 if rank else None,
        'bias': draw(heads, channels) - 1,
        'A': -torch.exp(draw(heads, channels, states) / 2),
        'D': draw(heads, channels),
        'W': draw(heads, channels, states),
    }
    return {name: None if name in without else tensor for name, tensor in inputs.items()}


def expected_outputs(inputs, directions, width, softplus):
    """y and the last states, by the one-step recurrence on gathered sequences."""
    x, projected, delta, dt_weight, bias, A, D, W = (inputs[name] for name in INPUTS)
    pixels, (heads, channels, states) = x.shape[1], A.shape
    groups = heads // len(directions)
    orders = [scan_order(direction, pixels // width, width, x.device) for direction in directions]
    x, projected = F.pad(x, (0, 0, 0, 1)), F.pad(projected, (0, 0, 0, 0, 0, 1))
    y, last_states = torch.zeros_like(x), []
    for head in range(heads):
        order = orders[head // groups]
        own = slice(head % groups * channels, (head % groups + 1) * channels)
        dt, B, C = projected[:, order, head].mT.split([projected.shape[3] - 2 * states, states, states], 1)
        steps = dt_weight[head] @ dt if delta is None else delta[:, order, own].mT
        skip, shift = (None if t is None else t[head] for t in (D, bias))
        u = x[:, order, own].mT
        B, C = B[:, None], C[:, None]
        if W is not None:  # as if every channel had a C of its own
            B, C = B.expand(-1, channels, -1, -1), W[head, :, :, None] * C
        y_head, last = reference.scan(u, steps, A[head], B, C, skip, shift, softplus)
        other = (own.start, groups * channels - own.stop)
        y = y.index_add(1, order, F.pad(y_head.mT, other))
        last_states.append(last)
    return {'y': y[:, :pixels], 'last_state': torch.stack(last_states, 1)}


def check(pattern, *shape, tiling=SMALL, dtype=torch.float32, softplus=True, end=True, A=None, **options):
    """Compares outputs and gradients; ``end``: whether the last states have a gradient; ``A``: one for all."""
    width = shape[1] * shape[2] if pattern == 'sequence' else shape[2]
    inputs = make(pattern, *shape, **options)
    if not softplus:
        inputs['A'] *= 0.05  # some step sizes are negative, and the states grow
    if A is not None:
        inputs['A'].fill_(A)
    typed = {'x', 'delta'}
    inputs = {n: t if t is None else t.to(dtype if n in typed else torch.float32) for n, t in inputs.items()}
    leaves = {n: t if t is None else t.double().requires_grad_() for n, t in inputs.items()}
    expected = expected_outputs(leaves, DIRECTIONS[pattern], width, softplus)
    given = ScanInputs(**inputs, directions=DIRECTIONS[pattern], width=width, softplus=softplus)
    y, last, states = scan.forward(given, True, tiling)
    assert (y.dtype, last.dtype, states.dtype) == (dtype, torch.float32, torch.float32)
    generator = torch.Generator().manual_seed(1)
    grad_y = torch.randn(y.shape, generator=generator).to(dtype)
    grad_last = torch.randn(last.shape, generator=generator) if end else None
    gradients = scan.backward(given, states, grad_y, grad_last, tiling)
    got = {'y': y, 'last_state': last}
    for name, gradient in zip(INPUTS, gradients):
        if inputs[name] is None:
            assert gradient.numel() == 0, name
        else:
            assert gradient.dtype == inputs[name].dtype and gradient.is_contiguous(), name
            got[f'grad_{name}'] = gradient
    present = {n: t for n, t in leaves.items() if t is not None}
    total = (expected['y'] * grad_y.double()).sum()
    if end:
        total = total + (expected['last_state'] * grad_last.double()).sum()
    expected |= dict(zip((f'grad_{n}' for n in present), torch.autograd.grad(total, list(present.values()))))
    assert_close(got, expected, TOLERANCES[dtype])
    return got


@pytest.mark.parametrize('shape', [
    (2, 3, 4, 10, 2, 3),  # lines shorter than a tile, odd rank, channels beyond a block
    (1, 4, 5, 9, 1, 2),  # lines not shorter
    (1, 7, 2, 3, 1, 1),
    (1, 1, 1, 4, 1, 2),  # one step
    (1, 2, 2, 3, 8, 18),  # rank beyond a tile of lanes
], ids=str)
@pytest.mark.parametrize('pattern', ['cross', 'atrous', 'overlapping parts'])
def test_maps(pattern, shape):
    check(pattern, *shape)


@pytest.mark.parametrize('pattern, shape', [('windows', (1, 2, 3, 3, 2, 1)), ('window', (2, 8, 3, 9, 1, 2))], ids=str)
def test_windows(pattern, shape):
    check(pattern, *shape)


@pytest.mark.parametrize('options', [
    {}, {'softplus': False}, {'without': ('bias', 'W')}, {'without': ('D', 'W')}, {'end': False}, {'groups': 1},
    {'without': ()},
], ids=str)
@pytest.mark.parametrize('rank', [0, 3])
def test_sequences(rank, options):
    check('sequence', 1, 1, 19, 5, 2, rank, **{'groups': 2, **options})


@pytest.mark.parametrize('states', [1, 2, 3, 4, 8, 16, 32])
def test_numbers_of_states(states):
    check('sequence', 1, 1, 10, 3, states, 2)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('case', [
    ('cross', 1, 3, 4, 5, 2, 2), ('atrous', 1, 5, 5, 5, 2, 2), ('sequence', 1, 1, 9, 5, 2, 0),
], ids=str)
def test_half_precision(case, dtype):
    check(*case, dtype=dtype)


@pytest.mark.parametrize('tiling', [
    Tiling(16, tile=16, block=32),  # as chosen, a single chunk of a single tile
    Tiling(4, tile=2, block=4, carry_rows=4, programs=1),
    Tiling(32, tile=4, block=16, splits=1),
    Tiling(8, tile=4, block=32),  # lanes that share a row of the sums over channels
    Tiling(8, tile=4, block=64),  # more channels than lanes
], ids=str)
def test_tilings_give_the_same(tiling):
    check('cross', 1, 3, 4, 5, 2, 2, tiling=tiling)


def test_chosen_tiling():
    check('cross', 1, 5, 7, 2, 1, 1, tiling=None)


def test_wide_offsets(monkeypatch):
    """The arithmetic of maps beyond 2^31 elements, on a small one."""
    monkeypatch.setattr(Geometry, 'wide', True)
    check('cross', 1, 3, 5, 9, 1, 2)
    check('sequence', 1, 1, 9, 3, 1, 0)


def test_integers_do_not_overflow(monkeypatch):
    """With the interpreter's check of sums and products, which triton_interpreter.py leaves out elsewhere."""
    monkeypatch.setattr(interpreter_builder, 'options', InterpreterOptions(sanitize_overflow=True))
    check('cross', 1, 2, 3, 3, 1, 1)
    check('sequence', 1, 1, 9, 3, 1, 0)


@pytest.mark.parametrize('decay', [-40.0, -1e-3])
def test_strong_and_weak_decays(decay):
    """The gradient of A is exact also where a state hardly remembers, or hardly forgets, its predecessor."""
    check('sequence', 1, 1, 19, 3, 2, 2, A=decay)


def test_large_steps_among_small_ones():
    """Sums of step sizes up to a step are no differences, which would lose the small ones beside a large one."""
    delta = torch.full((1, 24, 1), 1e-3)
    delta[:, 5::6] = 1000
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    inputs = {'x': draw(1, 24, 1), 'projected': draw(1, 24, 1, 2), 'delta': delta, 'dt_weight': None, 'bias': None,
              'A': torch.full((1, 1, 1), -16.0), 'D': None, 'W': None}
    y = scan.forward(ScanInputs(**inputs, directions=('h',), width=24, softplus=False), False, SMALL)[0]
    doubles = {name: value if value is None else value.double() for name, value in inputs.items()}
    expected = expected_outputs(doubles, ('h',), 24, softplus=False)['y']
    assert_close({'y': y}, {'y': expected}, TOLERANCES[torch.float32])


def test_step_sizes_far_from_zero():
    """Softplus and its slope keep their relative accuracy, seen where y is the step size: without memory."""
    v = torch.linspace(-60, 40, 101)[None, :, None]
    one = torch.ones_like(v)
    inputs = ScanInputs(
        x=one, projected=torch.ones(1, 101, 1, 2), delta=v, dt_weight=None, bias=None,
        A=torch.full((1, 1, 1), -1e38), D=None, W=None, directions=('h',), width=101, softplus=True,
    )
    y, _, states = scan.forward(inputs, True, SMALL)
    grad_delta = scan.backward(inputs, states, one, None, SMALL)[2]
    torch.testing.assert_close(y.double(), F.softplus(v.double(), threshold=100), rtol=1e-5, atol=0)
    torch.testing.assert_close(grad_delta.double(), torch.sigmoid(v.double()), rtol=1e-5, atol=0)


@pytest.mark.parametrize('shape', [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
@pytest.mark.parametrize('pattern', ['cross', 'atrous', 'windows', 'sequence'])
def test_nothing_to_scan(pattern, shape):
    inputs = make(pattern, *shape, 4, 2, 3)
    width = shape[1] * shape[2] if pattern == 'sequence' else shape[2]
    inputs = {n: t if t is None else t.float() for n, t in inputs.items()}
    given = ScanInputs(**inputs, directions=DIRECTIONS[pattern], width=width, softplus=True)
    y, last, states = scan.forward(given, True)
    gradients = scan.backward(given, states, y, None)
    assert y.shape == inputs['x'].shape and not last.any() and last.shape[0] == shape[0]
    for name, gradient in zip(INPUTS, gradients):
        assert not gradient.any() and (inputs[name] is None or gradient.shape == inputs[name].shape), name


def test_deterministic():
    first, second = (check('cross', 1, 2, 3, 9, 1, 1) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_states_are_kept_on_demand_only():
    inputs = {n: t if t is None else t.float() for n, t in make('cross', 1, 3, 3, 2, 1, 1).items()}
    given = ScanInputs(**inputs, directions=DIRECTIONS['cross'], width=3, softplus=True)
    assert scan.forward(given, False, SMALL)[2].numel() == 0


@given(
    st.sampled_from(['cross', 'atrous', 'overlapping parts', 'sequence']),
    st.tuples(*(st.integers(1, limit) for limit in (2, 4, 4, 9, 3, 4))),  # batch, height, width, channels, N, R
)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_shapes(pattern, shape):
    check(pattern, *shape)


@pytest.mark.parametrize('batch', [1, 16])
@pytest.mark.parametrize('pattern', ['cross', 'atrous', 'windows'])
@pytest.mark.parametrize('channels, side', STAGES)
def test_memory(channels, side, pattern, batch):
    """No tensor has the size of four directions of a map, and what depends on the tiling stays within its bounds."""

    class Sizes(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for tensor in tree_leaves(result):
                if isinstance(tensor, Tensor):
                    self.largest = max(self.largest, tensor.untyped_storage().nbytes())
            return result

    def empty(*sizes):
        return torch.empty(sizes, device='meta')

    pixels, rank, states = side * side, channels // 32, 16
    inputs = ScanInputs(
        x=empty(batch, pixels, channels), projected=empty(batch, pixels, 4, rank + 2 * states), delta=None,
        dt_weight=empty(4, channels, rank), bias=empty(4, channels), A=empty(4, channels, states),
        D=empty(4, channels), W=None, directions=DIRECTIONS[pattern], width=side, softplus=True,
    )
    with mock.patch.object(scan, '_launch'), Sizes() as sizes:
        kept = scan.forward(inputs, True)[2]
        scan.backward(inputs, kept, inputs.x, None)
    # Where a map is small, the programs' sums for the parameters are larger; they do not grow with it.
    assert sizes.largest < max(4 * 4 * batch * pixels * channels, 2**24)


def test_a_table_that_a_graph_records_is_not_kept():
    inputs = {n: t if t is None else t.float() for n, t in make('two', 1, 2, 3, 2, 1, 1).items()}
    given = ScanInputs(**inputs, directions=DIRECTIONS['two'], width=3, softplus=True)
    with mock.patch.multiple('torch.cuda', is_available=lambda: True, is_current_stream_capturing=lambda: True):
        recorded = scan._orders(given, geometry(given))
    kept = scan._orders(given, geometry(given))
    assert kept is not recorded and kept is scan._orders(given, geometry(given))
    # The last of the columns first; then windows, of 2 x 2 pixels: 6 is padding, -1 comes after the end.
    assert torch.equal(kept, recorded)
    assert kept.tolist() == [[5, 2, 4, 1, 3, 0, -1, -1], [0, 1, 3, 4, 2, 6, 5, 6]]


def test_tilings_that_cannot_be():
    with pytest.raises(ValueError, match='multiple'):
        Tiling(24, tile=16)
    with pytest.raises(ValueError, match='lanes'):
        Tiling(64, tile=32)
