"""pointwise_conv and inverted_bottleneck: every backend and instruction set against PyTorch in float64."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, functional
from torch.func import grad, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from mmmamba.deploy import fused_ops
from mmmamba.ops.cpu import native
from mmmamba.ops.cpu.blocks import BottleneckInputs, PointwiseInputs

GATE_ACTIVATIONS = {None: 'silu', 'gelu': None, 'silu': 'relu', 'relu': 'gelu'}  # beside another after the product
needs_library = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))
in_short_types = pytest.mark.parametrize(
    'dtype, tolerance', [(torch.bfloat16, 8e-3), (torch.float16, 1e-3)], ids=str)
WAYS = ('torch', 'passes', *(f'cpu-{isa}' for isa in native.ISAS))
# Odd channels, fewer than a vector has lanes, more than a panel of weights; maps of a pixel, a row, a column.
SHAPES = [(1, 3, 5, 1, 1), (2, 17, 33, 1, 5), (2, 8, 16, 7, 1), (1, 32, 85, 5, 4), (2, 50, 70, 9, 18),
          (1, 5, 49, 23, 2)]


def pointwise_conv(*inputs, backend: str | None = None, **others) -> Tensor:
    return fused_ops.pointwise_conv(PointwiseInputs(*inputs, **others), backend=backend)


def inverted_bottleneck(*inputs, backend: str | None = None, **others) -> Tensor:
    return fused_ops.inverted_bottleneck(BottleneckInputs(*inputs, **others), backend=backend)


def maps(*size: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)


def vector(*size: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64)


def pointwise_case(batch: int, inputs: int, outputs: int, height: int, width: int, parts: str) -> dict:
    """Arguments with 'b'ias, 'n'orm, 'g'ate, 'r'esidual, the gate's own 'p'rojection and nor'm' where in ``parts``."""
    case = dict(x=3 * maps(batch, inputs, height, width) + 1, weight=vector(outputs, inputs, 1, 1))
    if 'b' in parts:
        case.update(bias=vector(outputs))
    if 'n' in parts:
        case.update(norm_weight=vector(inputs), norm_bias=vector(inputs), eps=1e-3)
    if 'g' in parts:
        case.update(gate=maps(batch, inputs, height, width))
    if 'p' in parts:
        case.update(gate=maps(batch, outputs, height, width), gate_weight=vector(inputs, outputs, 1, 1))
    if 'm' in parts:
        case.update(gate_norm_weight=vector(outputs), gate_norm_bias=vector(outputs), gate_eps=1e-2)
    if 'r' in parts:
        case.update(residual=maps(batch, outputs, height, width))
    return case


def bottleneck_case(batch: int, inputs: int, hidden: int, height: int, width: int, parts: str) -> dict:
    """Arguments with those of 'bias', 'norm', 'skip', 'gate', 'reduction', 'residual' ('+') that ``parts`` names."""
    expanded, bias = hidden * (2 if 'g' in parts else 1), 'b' in parts
    case = dict(
        x=3 * maps(batch, inputs, height, width) + 1,
        expand_weight=vector(expanded, inputs, 1, 1),
        expand_bias=vector(expanded) if bias else None,
        depthwise_weight=vector(hidden, 1, 3, 3),
        depthwise_bias=vector(hidden) if bias else None,
        skip='s' in parts)
    if 'n' in parts:
        case.update(norm_weight=vector(inputs), norm_bias=vector(inputs), eps=1e-3)
    if 'r' in parts:
        outputs = inputs + 2
        case.update(reduce_weight=vector(outputs, hidden, 1, 1), reduce_bias=vector(outputs) if bias else None)
        if '+' in parts:
            case.update(residual=maps(batch, outputs, height, width))
    return case


CASES = {
    **{(pointwise_conv, parts): partial(pointwise_case, parts=parts)
       for parts in ('', 'b', 'n', 'g', 'p', 'br', 'bngr', 'bnpmr')},
    **{(inverted_bottleneck, parts): partial(bottleneck_case, parts=parts)
       for parts in ('', 'bn', 'bs', 'br', 'rg', 'bnsrg', 'bnsrg+')},
}


def scaled(case: dict) -> dict:
    """The same with weights of convolutions that keep what they sum as large as it was: float16 ends at 65504."""
    return {name: value / value[0].numel()**0.5 if 'weight' in name and 'norm' not in name else value
            for name, value in case.items()}


def cast(case: dict, dtype: torch.dtype) -> dict:
    return {name: value.to(dtype) if isinstance(value, Tensor) else value for name, value in case.items()}


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


@needs_library
@torch.no_grad()
def test_operators_refuse_what_the_kernel_would_misread():
    x, weight, residual = torch.randn(1, 6, 3, 4), torch.randn(8, 6, 1, 1), torch.randn(1, 8, 3, 4)
    tail = (None, None, None, 0.0, None, None, None, None, 0.0, None, None)
    stencil = torch.randn(8, 1, 3, 3), None, None, None, 0.0, False, None, weight.new_zeros(8, 8, 1, 1), None
    for wrong in (torch.float64, torch.int8):
        for arguments in ((x.to(wrong), weight), (x, weight.to(wrong))):
            with pytest.raises(ValueError, match=f'take torch.float32, torch.float16, torch.bfloat16, not {wrong}'):
                torch.ops.mmmamba.pointwise_conv(*arguments, *tail, None)
            with pytest.raises(ValueError, match=f'take torch.float32, torch.float16, torch.bfloat16, not {wrong}'):
                torch.ops.mmmamba.inverted_bottleneck(*arguments, None, *stencil, None)
    for wrong in (torch.float16, torch.float64):
        with pytest.raises(ValueError, match=f'float32 tensor on the CPU, .* not {wrong}'):
            torch.ops.mmmamba.pointwise_conv(x, weight, *tail, residual.to(wrong))
        with pytest.raises(ValueError, match=f'float32 tensor on the CPU, .* not {wrong}'):
            torch.ops.mmmamba.inverted_bottleneck(x, weight, None, *stencil, residual.to(wrong))


@torch.no_grad()
def test_what_is_not_finite_stays_so():
    values = torch.tensor([float('nan'), float('inf')]).view(2, 1, 1, 1)
    for activation in (None, 'gelu', 'silu', 'relu'):
        out = pointwise_conv(values, torch.ones(1, 1, 1, 1), activation=activation).flatten()
        assert out[0].isnan() and out[1] == float('inf'), activation


@pytest.mark.parametrize('op, parts', CASES, ids=lambda value: getattr(value, '__name__', value))
def test_gradients_are_those_of_pytorch(op, parts):
    """Inputs that need a gradient go to 'passes': results and gradients are those of PyTorch's autograd."""
    case = cast(CASES[op, parts](2, 6, 20, 5, 7), torch.float32)
    for needs in (name for name, value in case.items() if isinstance(value, Tensor)):
        inputs = {**case, needs: case[needs].clone().requires_grad_()}
        out = op(**inputs)
        expected = op(**inputs, backend='torch')
        assert out.requires_grad
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
        incoming = torch.randn_like(out)
        got, wanted = (torch.autograd.grad(y, inputs[needs], incoming)[0] for y in (out, expected))
        assert (got - wanted).norm() <= 2e-5 * max(wanted.norm(), incoming.norm())
        with pytest.raises(RuntimeError, match='cpu: .*It has no gradient'):
            op(**inputs, backend='cpu')


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


@needs_library
@pytest.mark.parametrize('op, parts', CASES, ids=lambda value: getattr(value, '__name__', value))
@torch.no_grad()
def test_operators_are_registered_as_they_behave(op, parts):
    torch.compiler.reset()
    case = cast(CASES[op, parts](2, 6, 20, 5, 7), torch.float32)
    expected = op(**case, activation='gelu')
    compiled = torch.compile(lambda **inputs: op(**inputs, activation='gelu'), backend='aot_eager', fullgraph=True)
    got = compiled(**case)
    assert torch.equal(got, expected) and got.stride() == expected.stride()
    with torch.autocast('cpu', torch.bfloat16):
        expected, got = op(**case, activation='gelu'), compiled(**case)
    assert torch.equal(got, expected) and (got.dtype, got.stride()) == (expected.dtype, expected.stride())


@needs_library
@torch.no_grad()
def test_operators_export_with_any_size():

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.case = {name: value for name, value in cast(bottleneck_case(1, 6, 20, 5, 7, 'bnsrg'),
                                                             torch.float32).items() if name != 'x'}

        def forward(self, x: Tensor) -> Tensor:
            return inverted_bottleneck(x, **self.case, activation='gelu')

    block, sizes = Block(), torch.export.Dim
    exported = torch.export.export(
        block, (maps(2, 6, 8, 9).float(), ), dynamic_shapes=({0: sizes('b'), 2: sizes('h'), 3: sizes('w')}, ))
    assert any('mmmamba.inverted_bottleneck' in str(node.target) for node in exported.graph.nodes)
    x = maps(3, 6, 5, 11).float()
    assert torch.equal(exported.module()(x), block(x))


@needs_library
@pytest.mark.parametrize('op, parts', CASES, ids=lambda value: getattr(value, '__name__', value))
def test_program_exported_without_gradients_refuses_to_be_differentiated(op, parts):

    class Block(torch.nn.Module):
        def forward(self, case: dict) -> Tensor:
            return op(**case, activation='gelu')

    case = cast(CASES[op, parts](2, 6, 20, 5, 7), torch.float32)
    with torch.no_grad():
        program = torch.export.export(Block(), (case, )).module()
        torch.testing.assert_close(program(case), Block()(case))
    case['x'].requires_grad_()
    with pytest.raises(RuntimeError, match='for inference only'):
        program(case).sum().backward()


@pytest.mark.parametrize('op, parts', CASES, ids=lambda value: getattr(value, '__name__', value))
@torch.no_grad()
def test_forward_mode_takes_pytorch(op, parts):
    case = cast(CASES[op, parts](2, 6, 20, 5, 7), torch.float32)
    x = case.pop('x')

    def tangent(backend: str | None) -> Tensor:
        return torch.func.jvp(lambda x: op(x, **case, activation='gelu', backend=backend), (x, ), (x, ))[1]

    assert tangent(None).any() and torch.equal(tangent(None), tangent('torch'))
    with pytest.raises(RuntimeError, match='cpu: .*It has no forward-mode derivative'):
        tangent('cpu')


@needs_library
@pytest.mark.parametrize('op, parts', CASES, ids=lambda value: getattr(value, '__name__', value))
@torch.no_grad()
def test_flops_are_those_of_the_convolutions_inside(op, parts):
    case = cast(CASES[op, parts](2, 6, 20, 5, 7), torch.float32)
    counts = []
    for backend in ('cpu', 'torch'):
        with FlopCounterMode(display=False) as counter:
            op(**case, backend=backend)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_wrong_arguments_are_named():
    case = pointwise_case(1, 6, 8, 3, 4, 'bngr')
    for name in ('weight', 'bias', 'norm_weight', 'norm_bias', 'gate', 'residual'):
        with pytest.raises(ValueError, match=f'pointwise_conv: {name} must be'):
            pointwise_conv(**{**case, name: case[name][..., None]})
    with pytest.raises(ValueError, match='norm_weight and norm_bias go together'):
        pointwise_conv(**{**case, 'norm_bias': None})
    with pytest.raises(ValueError, match="no activation named 'tanh'; it has gelu, silu, relu"):
        pointwise_conv(**case, activation='tanh')
    with pytest.raises(ValueError, match="no activation named 'tanh'"):
        pointwise_conv(**case, gate_activation='tanh')
    with pytest.raises(ValueError, match=r'x must be \(batch, channels, height, width\)'):
        pointwise_conv(case['x'][0], case['weight'])
    with pytest.raises(ValueError, match="no backend named 'cuda'; it has cpu, passes, torch"):
        pointwise_conv(**case, backend='cuda')
    projected = pointwise_case(1, 6, 8, 3, 4, 'bnpmr')
    for name in ('gate', 'gate_weight', 'gate_norm_weight', 'gate_norm_bias'):
        with pytest.raises(ValueError, match='pointwise_conv: gate'):
            pointwise_conv(**{**projected, name: projected[name][..., None]})
    for missing in ('gate', 'gate_weight'):
        with pytest.raises(ValueError, match='gate_norm_weight needs a gate_weight, and gate_weight a gate'):
            pointwise_conv(**{**projected, missing: None})
    case = bottleneck_case(1, 6, 20, 3, 4, 'bnsrg+')
    for name in ('expand_bias', 'depthwise_weight', 'depthwise_bias', 'reduce_weight', 'reduce_bias', 'residual'):
        with pytest.raises(ValueError, match=f'inverted_bottleneck: {name} must be'):
            inverted_bottleneck(**{**case, name: case[name][..., None]})
    with pytest.raises(ValueError, match='expand_weight must have 20 outputs, or twice as many with a reduction'):
        inverted_bottleneck(**{**case, 'reduce_weight': None})
    case = bottleneck_case(1, 6, 20, 3, 4, 'b')
    with pytest.raises(ValueError, match='reduce_bias and residual need a reduce_weight'):
        inverted_bottleneck(**case, residual=case['x'])


def pointwise_call() -> tuple[Callable[[Tensor], Tensor], Tensor]:
    rest = (None, None, None, 1e-6, None, None, None, None, 1e-6, None, None, None)
    return lambda x: torch.ops.mmmamba.pointwise_conv(x, torch.ones(3, 4, 1, 1), *rest), torch.ones(1, 4, 2, 2)


def inverted_call() -> tuple[Callable[[Tensor], Tensor], Tensor]:
    weights = (torch.ones(4, 4, 1, 1), None, torch.ones(4, 1, 3, 3), None, None, None, 1e-6, False, None, None)
    return lambda x: torch.ops.mmmamba.inverted_bottleneck(x, *weights, None, None), torch.ones(1, 4, 2, 2)


@needs_library
@pytest.mark.parametrize('make', [pointwise_call, inverted_call])
def test_the_operators_refuse_forward_mode(make):
    operator, x = make()
    assert operator(x).abs().max() > 0
    # PyTorch 2.4 refuses the operators itself, in all of its transforms.
    words = 'no forward-mode derivative' if torch.__version__ >= '2.11' else 'with functorch transforms'
    with pytest.raises(RuntimeError, match=words):
        jvp(operator, (x,), (x,))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match='no forward-mode derivative'):
        operator(forward_ad.make_dual(x, x))

BLOCKS = {
    'gated 1x1': lambda x, w: pointwise_conv(x, w[:, :, None, None], gate=x.flip(0), activation='silu'),
    'inverted bottleneck': lambda x, w: inverted_bottleneck(
        x, w[:, :, None, None], None, w.unsqueeze(1).repeat(1, 1, 3)[:, :, :9].unflatten(2, (3, 3)), None,
        skip=True, activation='gelu', reduce_weight=w.T[:, :, None, None]),
}


@pytest.mark.parametrize('block', BLOCKS.values(), ids=BLOCKS)
def test_the_blocks_go_through_transforms(block):
    make = torch.Generator().manual_seed(0)
    x, v = (torch.randn(2, 4, 3, 5, generator=make, dtype=torch.float64) for _ in range(2))
    w = torch.randn(8, 4, generator=make, dtype=torch.float64)

    def value(x: Tensor) -> Tensor:
        return block(x, w).square().sum()

    leaf = x.clone().requires_grad_()
    gradient, = torch.autograd.grad(value(leaf), leaf)
    torch.testing.assert_close(grad(value)(x), gradient)
    torch.testing.assert_close(jvp(value, (x,), (v,))[1], (gradient * v).sum())
    torch.testing.assert_close(jvp(grad(value), (x,), (v,))[1], functional.hvp(value, x, v)[1])
    each = vmap(grad(lambda sample: value(sample.unsqueeze(0))))(x)
    alone = [torch.autograd.grad(value(s := t.unsqueeze(0).requires_grad_()), s)[0][0] for t in x]
    torch.testing.assert_close(each, torch.stack(alone))
