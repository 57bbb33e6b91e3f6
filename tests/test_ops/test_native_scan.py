"""The plain functions of the native scan, on every instruction set, against the recurrence in float64."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from scan_cases import DIRECTIONS, assert_close, isa_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmmamba.ops.cpu import native, scan
from mmmamba.ops.dispatch import TOLERANCES
from mmmamba.ops.scan import reference
from mmmamba.ops.scan.fused import ScanInputs
from mmmamba.ops.scan.orders import scan_order

NAMES = ('x', 'projected', 'delta', 'dt_weight', 'bias', 'A', 'D', 'W')
ISAS = [f'cpu-{isa}' for isa in native.ISAS]
needs_library = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))


class Case(NamedTuple):
    pattern: str
    batch: int
    height: int
    width: int
    channels: int
    states: int
    rank: int  # 0: step sizes are given
    groups: int = 1
    bias: bool = True
    skip: bool = True
    softplus: bool = True
    weighted: bool = False


CASES = [
    Case('cross', 2, 9, 11, 40, 16, 3),
    Case('cross', 1, 13, 10, 17, 19, 17),
    Case('cross', 1, 1, 1, 3, 1, 1),
    Case('cross', 1, 5, 1, 8, 2, 9, bias=False, skip=False),
    Case('cross', 1, 7, 9, 33, 16, 0),
    Case('atrous', 2, 9, 11, 40, 16, 3),
    Case('atrous', 1, 14, 22, 16, 32, 8),
    Case('atrous', 1, 1, 7, 5, 4, 1, skip=False),
    Case('atrous', 1, 3, 3, 9, 8, 0),
    Case('windows', 2, 9, 11, 40, 16, 3),
    Case('windows', 1, 23, 16, 17, 5, 2),
    Case('windows', 1, 3, 5, 8, 4, 0, weighted=True),
    Case('windows', 1, 1, 1, 3, 1, 1),
    Case('window', 2, 9, 11, 21, 8, 2),
    Case('parts', 1, 9, 12, 18, 4, 2),
    Case('overlapping parts', 2, 9, 12, 18, 4, 2),
    Case('parts twice', 2, 8, 12, 18, 4, 2),
    Case('sequence', 2, 1, 150, 20, 16, 0, groups=3),
    Case('sequence', 1, 1, 1, 1, 1, 0, bias=False, skip=False, softplus=False),
    Case('sequence', 3, 1, 65, 33, 8, 0, softplus=False),
    Case('sequence', 1, 1, 130, 12, 3, 5, groups=2),
    Case('sequence', 2, 1, 140, 21, 19, 0, groups=2, weighted=True),
    Case('cross', 1, 7, 9, 18, 5, 2, weighted=True),
    *(Case(pattern, 0, 4, 6, 5, 4, 2) for pattern in DIRECTIONS),
    *(Case(pattern, 2, 0, 6, 5, 4, 2) for pattern in DIRECTIONS),
]


def make_inputs(case: Case, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor | None]:
    make = partial(torch.randn, generator=torch.Generator().manual_seed(seed))
    pixels, heads = case.height * case.width, case.groups * len(DIRECTIONS[case.pattern])
    positive = torch.clone if case.softplus else torch.abs  # step sizes are
    x = make(case.batch, pixels, case.groups * case.channels)
    return {
        'x': x.to(dtype),
        'projected': make(case.batch, pixels, heads, case.rank + 2 * case.states),
        'delta': None if case.rank else positive(make(x.shape) - 1).to(dtype),
        'dt_weight': make(heads, case.channels, case.rank) / case.rank**0.5 if case.rank else None,
        'bias': positive(make(heads, case.channels) - 1) if case.bias else None,
        'A': -torch.exp(make(heads, case.channels, case.states) / 2),
        'D': make(heads, case.channels) if case.skip else None,
        'W': make(heads, case.channels, case.states) if case.weighted else None,
    }


def given(inputs: dict[str, Tensor | None], case: Case) -> ScanInputs:
    return ScanInputs(**inputs, directions=DIRECTIONS[case.pattern], width=case.width, softplus=case.softplus)


def recurrence(
    x: Tensor,
    projected: Tensor,
    delta: Tensor | None,
    dt_weight: Tensor | None,
    bias: Tensor | None,
    A: Tensor,
    D: Tensor | None,
    W: Tensor | None,
    directions: Sequence[str],
    width: int,
    softplus: bool,
) -> tuple[Tensor, Tensor]:
    """What the native scan shall compute, one head after the other; with W, each channel has a C of its own."""
    heads, channels, states = A.shape
    orders = [scan_order(direction, x.shape[1] // width, width, torch.device('cpu')) for direction in directions]
    groups = heads // len(orders)
    padded = [None if t is None else F.pad(t.flatten(2), (0, 0, 0, 1)) for t in (x, projected, delta)]
    y, last_states = torch.zeros_like(padded[0]), []
    for head in range(heads):
        order = orders[head // groups]
        columns = slice(head % groups * channels, (head % groups + 1) * channels)
        u = padded[0][:, order, columns].transpose(1, 2)
        rows = padded[1][:, order].unflatten(-1, projected.shape[2:])[:, :, head].transpose(1, 2)
        dt, B, C = rows.split([rows.shape[1] - 2 * states, states, states], dim=1)
        d = dt_weight[head] @ dt if delta is None else padded[2][:, order, columns].transpose(1, 2)
        skip, offset = (None if t is None else t[head] for t in (D, bias))
        B, C = B.unsqueeze(1), C.unsqueeze(1)
        if W is not None:
            B, C = B.expand(-1, channels, -1, -1), W[head, :, :, None] * C
        out, last = reference.scan(u, d, A[head], B, C, skip, offset, softplus)
        y[:, :, columns] = y[:, :, columns].index_add(1, order, out.transpose(1, 2))
        last_states.append(last)
    return y[:, :-1], torch.stack(last_states, dim=1)


def outputs(inputs: dict[str, Tensor | None], case: Case, isa: str | None) -> dict[str, Tensor]:
    """Results and all gradients, for seeded gradients of the two results."""
    y, last_state, states = scan.forward(given(inputs, case), True, isa)
    make = partial(torch.randn, generator=torch.Generator().manual_seed(1))
    incoming = make(y.shape).to(y.dtype), make(last_state.shape)
    gradients = scan.backward(given(inputs, case), states, *incoming, isa)
    named = {f'grad_{name}': gradient for name, gradient in zip(NAMES, gradients)}
    for name, value in inputs.items():
        if value is None:
            assert named.pop(f'grad_{name}').numel() == 0
        else:
            assert named[f'grad_{name}'].dtype == value.dtype, name
    assert y.dtype == inputs['x'].dtype
    return {'y': y, 'last_state': last_state, **named}


def expected_outputs(inputs: dict[str, Tensor | None], case: Case) -> dict[str, Tensor]:
    leaves = {name: None if t is None else t.double().requires_grad_() for name, t in inputs.items()}
    results = recurrence(*leaves.values(), DIRECTIONS[case.pattern], case.width, case.softplus)
    make = partial(torch.randn, generator=torch.Generator().manual_seed(1))
    incoming = [make(results[0].shape).to(inputs['x'].dtype).double(), make(results[1].shape).double()]
    # Without steps the last states, all zero, depend on nothing.
    roots = [(result, gradient) for result, gradient in zip(results, incoming) if result.requires_grad]
    names = [name for name, leaf in leaves.items() if leaf is not None]
    differentiable, incoming = zip(*roots)
    gradients = torch.autograd.grad(differentiable, [leaves[name] for name in names], incoming)
    return {
        'y': results[0], 'last_state': results[1],
        **{f'grad_{name}': gradient for name, gradient in zip(names, gradients)},
    }


@pytest.fixture
def threads() -> Iterator[None]:
    """Lets a test change the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize('way', ISAS)
@pytest.mark.parametrize('case', CASES, ids=str)
def test_agrees_with_the_recurrence(case, way):
    inputs = make_inputs(case)
    assert_close(outputs(inputs, case, isa_of(way)), expected_outputs(inputs, case), TOLERANCES[torch.float32])


@pytest.mark.parametrize('way', ISAS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('case', [
    CASES[0], CASES[4], CASES[5], CASES[9], Case('parts', 1, 9, 12, 18, 4, 2),
    Case('overlapping parts', 2, 9, 12, 18, 4, 2),
], ids=str)
def test_short_types_are_rounded_once(case, dtype, way):
    """As float32 inputs of the same values, but for the rounding of the result."""
    isa, inputs = isa_of(way), make_inputs(case, dtype)
    got = outputs(inputs, case, isa)
    wide = {name: None if tensor is None else tensor.float() for name, tensor in inputs.items()}
    y, last_state, _ = scan.forward(given(wide, case), False, isa)
    assert torch.equal(got['y'], y.to(dtype)) and torch.equal(got['last_state'], last_state)
    assert_close(got, expected_outputs(inputs, case), TOLERANCES[dtype])


@pytest.mark.parametrize('way', ISAS)
@pytest.mark.parametrize('factor', [1.0, 1.2345, 0.003])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_every_short_number_is_read_and_rounded(dtype, factor, way):
    """With B and C zero, y is D x. What float32 holds as a denormal number counts as zero."""
    x = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype).view(1, -1, 16)
    x = torch.where(torch.isfinite(x), x, 0)
    projected, ones = torch.zeros(1, x.shape[1], 1, 3), torch.ones(1, 16, 1)
    inputs = ScanInputs(x=x, projected=projected, delta=None, dt_weight=ones, bias=None, A=-ones,
                        D=factor * ones[..., 0], W=None, directions=('h',), width=x.shape[1], softplus=True)
    y, _, _ = scan.forward(inputs, False, isa_of(way))
    tiny = torch.finfo(torch.float32).tiny
    wide = torch.where(x.float().abs() < tiny, 0, x.float() * factor)
    assert torch.equal(y, torch.where(wide.abs() < tiny, 0, wide).to(dtype))


@pytest.mark.parametrize('way', ISAS)
def test_decays_beyond_the_range_of_float32(way):
    """Exponents that need limits, in one direction or the other, beside moderate ones."""
    case = Case('sequence', 1, 1, 150, 20, 16, 0, bias=False, softplus=False)
    inputs = make_inputs(case)
    inputs['A'][:, ::3, ::2] *= 200
    inputs['delta'][:, ::7] *= 30
    tolerance = TOLERANCES[torch.float32]
    assert_close(outputs(inputs, case, isa_of(way)), expected_outputs(inputs, case), tolerance)
    inputs['A'][:, 5, 3] = 40.0
    inputs['delta'][:, :, 5] = 0.0
    inputs['delta'][:, 9, 5] = 2.0
    assert_close(outputs(inputs, case, isa_of(way)), expected_outputs(inputs, case), tolerance)


@pytest.mark.parametrize('way', ISAS)
def test_not_a_number_stays_one(way):
    case = Case('sequence', 1, 1, 70, 20, 16, 0)
    for name in ('x', 'delta'):
        inputs = make_inputs(case)
        inputs[name][0, 3, 2] = torch.nan
        y = scan.forward(given(inputs, case), False, isa_of(way))[0].isnan()
        assert y[0, 3:, 2].all() and y.sum() == 67


@pytest.mark.parametrize('way', ISAS)
def test_not_a_number_hides_no_large_step(way):
    case = Case('sequence', 1, 1, 8, 1, 1, 0, bias=False, softplus=False)
    inputs = make_inputs(case)
    inputs['A'].fill_(-1)
    inputs['delta'].fill_(0.5)[0, 1] = 95
    expected = scan.forward(given(inputs, case), False, isa_of(way))[0]
    inputs['delta'][0, 5] = torch.nan
    got = scan.forward(given(inputs, case), False, isa_of(way))[0]
    assert torch.equal(got[:, :5], expected[:, :5]) and got[:, 5:].isnan().all()


@needs_library
def test_tensors_that_the_kernel_would_misread_are_refused():
    case = Case('cross', 1, 4, 6, 5, 4, 2)
    inputs = make_inputs(case)
    for name in ('x', 'projected', 'A'):
        for wrong in (inputs[name].double(), inputs[name].repeat_interleave(2, dim=-1)[..., ::2]):
            with pytest.raises(ValueError, match='native'):
                outputs({**inputs, name: wrong}, case, None)
    y, last_state, states = scan.forward(given(inputs, case), True)
    with pytest.raises(ValueError, match='torch.float32 tensor on the CPU, .* not torch.float16'):
        scan.backward(given(inputs, case), states, y.half(), None)


@needs_library
def test_impossible_sizes_are_refused():
    case = Case('cross', 1, 4, 6, 5, 4, 2)
    with pytest.raises(ValueError, match='A map of 24 pixels has no rows of 7'):
        outputs(make_inputs(case), case._replace(width=7), None)
    with pytest.raises(ValueError, match=r'fewer than 2\^31 pixels'):
        scan._visits(('h',), 2**31, 2**31)


@needs_library
@pytest.mark.parametrize('case', [
    Case('cross', 1, 16, 25, 8, 16, 2),
    Case('cross', 1, 9, 23, 70, 16, 3),
    Case('cross', 3, 9, 23, 40, 5, 0),
    Case('atrous', 1, 33, 29, 8, 16, 2),
    Case('windows', 1, 16, 25, 8, 16, 2),
    Case('overlapping parts', 1, 16, 25, 8, 16, 2),
    Case('parts twice', 1, 32, 26, 8, 16, 2),
    Case('sequence', 1, 1, 700, 8, 16, 0, softplus=False),
    Case('sequence', 1, 1, 70, 20, 16, 2, groups=3),
    Case('sequence', 1, 1, 700, 8, 16, 0, weighted=True),
], ids=str)
def test_results_do_not_depend_on_threads(case, threads):
    """But for rounding; and for a given number of threads they are always the same."""
    inputs = make_inputs(case)
    expected = expected_outputs(inputs, case)
    for count in (1, 2, 3, 7, 16):
        torch.set_num_threads(count)
        got = outputs(inputs, case, None)
        assert_close(got, expected, TOLERANCES[torch.float32])
        again = outputs(inputs, case, None)
        assert all(torch.equal(again[name], value) for name, value in got.items())


@needs_library
def test_short_orders_are_not_cut_into_nothing(threads):
    """A segment without steps would take a state through a decay of zero times infinity."""
    case = Case('windows', 1, 1, 128, 8, 2, 1)  # 128 steps, or 7 x 133
    inputs = make_inputs(case)
    inputs['A'].fill_(-torch.inf)
    torch.set_num_threads(1)
    y, last_state, _ = scan.forward(given(inputs, case), False)
    torch.set_num_threads(16)
    torch.testing.assert_close(scan.forward(given(inputs, case), False)[:2], (y, last_state))
    assert y.isfinite().all() and last_state.isfinite().all()


@needs_library
def test_work_is_split_over_the_threads():
    forward = partial(scan._split, 1, 4, copies=(1,), ends=scan.FORWARD_ENDS)
    backward = partial(scan._split, 1, 4, 1, (1, 2), ends=scan.BACKWARD_ENDS)
    assert forward(blocks=4, chunks=400, threads=1) == (1, 1, 1)
    assert forward(blocks=32, chunks=400, threads=2) == (4, 1, 1)
    assert forward(blocks=3, chunks=400, threads=2) == (3, 1, 1)
    assert forward(blocks=4, chunks=400, threads=32) == (4, 1, 8)
    assert forward(blocks=1, chunks=1, threads=32) == (1, 1, 1)  # nothing to split
    assert backward(chunks=400, threads=1) == (1, 1, 1)
    assert backward(chunks=400, threads=2) == (1, 2, 1)
    assert backward(chunks=400, threads=16) == (1, 2, 8)


class LargestOutput(TorchDispatchMode):
    """Counts the elements of what PyTorch allocates meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.total = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
            self.total += result.numel()
        return result


@needs_library
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('count', [1, 2, 16])
def test_memory_is_linear_and_below_a_sequence_for_each_direction(count, dtype, threads):
    torch.set_num_threads(count)
    totals = []
    for side in (32, 64):
        case = Case('cross', 1, side, side, 64, 16, 2)
        inputs = make_inputs(case, dtype)
        scan._visits(DIRECTIONS[case.pattern], side * side, side)  # kept between calls
        with LargestOutput() as counter:
            outputs(inputs, case, None)
        assert counter.largest < 4 * inputs['x'].numel()
        totals.append(counter.total)
    assert totals[1] < 4.1 * totals[0]
