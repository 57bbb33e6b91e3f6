"""pointwise_conv and inverted_bottleneck as operators of PyTorch: gradients, compilation, export, refusals."""
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fused_cases import (
    CASES,
    bottleneck_case,
    cast,
    inverted_bottleneck,
    maps,
    needs_library,
    pointwise_case,
    pointwise_conv,
)
from torch import Tensor
from torch.autograd import forward_ad, functional
from torch.func import grad, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture(autouse=True)
def seeded_and_poisoned(poisoned_memory):
    torch.manual_seed(0)


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
