"""norm_gate and gated_depthwise: every backend and instruction set against float64, forward and backward."""
from __future__ import annotations

import copy
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import grad

from mmmamba.deploy import fuse_for_training
from mmmamba.deploy.fused_passes import convolved_pass, fused_pass
from mmmamba.layers import ODSSBlock, VSSBlock
from mmmamba.ops.cpu import native, passes
from mmmamba.ops.cpu.passes import GatedDepthwiseInputs, NormGateInputs
from mmmamba.ops.dispatch import TOLERANCES

needs_library = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))
WAYS = ('torch', *(f'cpu-{isa}' for isa in native.ISAS))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Channels fewer than lanes, more than an item has, odd; maps of a pixel, a row, a column, more rows than strips.
SHAPES = [(1, 3, 1, 1), (2, 17, 1, 5), (2, 16, 7, 1), (1, 85, 5, 4), (2, 70, 9, 18), (1, 130, 37, 3)]


def norm_gate_case(shape: tuple[int, ...], norm: bool, gate: bool, activation: str | None) -> NormGateInputs:
    channels = shape[1]
    return NormGateInputs(
        x=3 * torch.randn(shape) + 1,
        weight=torch.randn(channels) if norm else None,
        bias=torch.randn(channels) if norm else None,
        gate=2 * torch.randn(shape) if gate else None,
        eps=1e-3,
        activation=activation,
        dtype=torch.float32)


def gated_depthwise_case(shape: tuple[int, ...], gate: bool, bias: bool, activation: str | None
                         ) -> GatedDepthwiseInputs:
    batch, channels, height, width = shape
    return GatedDepthwiseInputs(
        x=torch.randn(batch, channels * (1 + gate), height, width),
        weight=torch.randn(channels, 1, 3, 3),
        bias=torch.randn(channels) if bias else None,
        skip=bias,
        activation=activation)


CASES = {
    'norm': partial(norm_gate_case, norm=True, gate=False),
    'norm_gate': partial(norm_gate_case, norm=True, gate=True),
    'gate': partial(norm_gate_case, norm=False, gate=True),
    'depthwise': partial(gated_depthwise_case, gate=False, bias=False),
    'gated_depthwise': partial(gated_depthwise_case, gate=True, bias=True),
}


def cast(inputs: Any, maps: torch.dtype, parameters: torch.dtype) -> Any:
    """Leaves of a graph of their own: maps in one dtype, parameters in another."""
    def leaf(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return maps if isinstance(value, torch.dtype) else value
        return value.detach().to(maps if value.dim() == 4 and value.shape[1] > 1 else parameters).requires_grad_()

    return inputs._replace(**{name: leaf(value) for name, value in inputs._asdict().items()})


def use(way: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The backend that ``way`` names, on its instruction set alone."""
    backend, _, isa = way.partition('-')
    if backend == 'cpu':
        if isa not in native.available_isas():
            pytest.skip(f'no {isa} here')
        monkeypatch.setattr(native, 'available_isas', lambda: (isa, ))
    return backend


def results(inputs: Any, backend: str | None, gradient: Tensor) -> dict[str, Tensor]:
    """The output and all gradients, by name."""
    y = fused_pass(inputs, backend=backend)
    y.backward(gradient.to(y.dtype))
    return {'y': y.detach(), **{name: value.grad for name, value in inputs._asdict().items()
                                if isinstance(value, Tensor)}}


@pytest.fixture(autouse=True)
def seeded_and_poisoned(poisoned_memory):
    torch.manual_seed(0)


@pytest.mark.parametrize('way, dtype', [('torch', torch.float32), *product(WAYS[1:], DTYPES)], ids=str)
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('activation', [None, 'gelu', 'silu', 'relu'])
def test_results_and_gradients_equal_those_in_double_precision(way, dtype, case, activation, monkeypatch):
    backend, tolerance = use(way, monkeypatch), TOLERANCES[dtype]
    for shape in SHAPES:
        inputs = CASES[case](shape, activation=activation)
        given = cast(inputs, dtype, torch.float32)
        gradient = torch.randn(shape).to(dtype)
        rounded = given._replace(**{name: value.detach() for name, value in given._asdict().items()
                                    if isinstance(value, Tensor)})
        expected = results(cast(rounded, torch.float64, torch.float64), 'torch', gradient)
        for name, got in results(given, backend, gradient).items():
            assert got.isfinite().all(), (shape, name)
            error = (got - expected[name]).norm()
            # A sum over few pixels may cancel, and a norm of few channels takes most of its input's gradient away.
            allowed = tolerance.forward if name == 'y' else tolerance.gradient
            assert error <= allowed * max(expected[name].norm(), gradient.norm()), (shape, name)


@needs_library
@pytest.mark.parametrize('case', CASES)
def test_any_layout_of_memory(case):
    inputs = CASES[case]((2, 6, 5, 7), activation='gelu')
    gradient = torch.randn(2, 6, 5, 7)
    expected = results(cast(inputs, torch.float32, torch.float32), 'cpu', gradient)
    strided = inputs._replace(**{
        name: value.repeat_interleave(2, dim=-1)[..., ::2].detach().requires_grad_()
        for name, value in inputs._asdict().items() if isinstance(value, Tensor)})
    for name, got in results(strided, 'cpu', gradient.transpose(2, 3).contiguous().transpose(2, 3)).items():
        torch.testing.assert_close(got, expected[name], msg=name)


@needs_library
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('shape', [(0, 4, 3, 3), (2, 4, 0, 3), (2, 4, 3, 0)])
def test_empty_maps(case, shape):
    inputs = cast(CASES[case](shape, activation='gelu'), torch.float32, torch.float32)
    for name, got in results(inputs, 'cpu', torch.zeros(shape)).items():
        assert not got.any(), name  # of parameters: zeros
    assert fused_pass(inputs).shape == shape


@needs_library
@pytest.mark.parametrize('case', CASES)
def test_results_do_not_depend_on_threads(case):
    inputs, gradient, threads = CASES[case]((3, 70, 9, 11), activation='gelu'), torch.randn(3, 70, 9, 11), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            threads.append(results(cast(inputs, torch.float32, torch.float32), 'cpu', gradient))
    finally:
        torch.set_num_threads(1)
    for name, one in threads[0].items():
        torch.testing.assert_close(threads[1][name], one, msg=name)


@needs_library
def test_what_is_not_finite_stays_so():
    x = torch.ones(1, 20, 3, 3)
    x[0, 4, 1, 1] = torch.nan
    norm = NormGateInputs(x, torch.ones(20), torch.zeros(20), None, 1e-5, None, torch.float32)
    assert fused_pass(norm, backend='cpu')[0, :, 1, 1].isnan().all()
    for activation in (None, 'gelu', 'silu', 'relu'):
        y = fused_pass(GatedDepthwiseInputs(x, torch.ones(20, 1, 3, 3), None, False, activation), backend='cpu')
        assert y[0, 4].isnan().all() and y[0, :4].isfinite().all() and y[0, 5:].isfinite().all()


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('bias', [True, False])
def test_a_convolution_afterwards_changes_nothing(dtype, case, bias):
    """Against the pass and the convolution one after the other, whose results are kept."""
    inputs, found = CASES[case]((2, 20, 5, 7), activation='gelu'), []
    weight, gradient = torch.randn(11, 20, 1, 1), torch.randn(2, 11, 5, 7).to(dtype)
    for together in (True, False):
        given = cast(inputs, dtype, torch.float32)
        w, b = weight.clone().requires_grad_(), torch.ones(11).requires_grad_() if bias else None
        if together:
            y = convolved_pass(given, w, b)
        else:
            y = F.conv2d(fused_pass(given), w.to(dtype), None if b is None else b.to(dtype))
        y.backward(gradient)
        found.append([y, *(value.grad for value in (w, b, *given) if isinstance(value, Tensor))])
    for got, expected in zip(*found):
        assert got.dtype == expected.dtype
        assert (got - expected).norm() <= TOLERANCES[dtype].gradient * expected.norm()


@needs_library
@pytest.mark.parametrize('frozen', ['map', 'convolution', 'all but the map', 'all but the bias'])
def test_what_is_frozen_costs_nothing_and_the_rest_stays_right(frozen):
    found = []
    for trained in (True, False):
        inputs = cast(CASES['gated_depthwise']((2, 20, 5, 7), activation='gelu'), torch.float32, torch.float32)
        torch.manual_seed(1)
        leaves = dict(map=inputs.x, depthwise=inputs.weight, depthwise_bias=inputs.bias,
                      weight=torch.randn(11, 20, 1, 1).requires_grad_(), bias=torch.randn(11).requires_grad_())
        kept = {'map': leaves.keys() - {'map'}, 'convolution': leaves.keys() - {'weight', 'bias'},
                'all but the map': {'map'}, 'all but the bias': {'bias'}}[frozen]
        with torch.no_grad():
            for leaf in (inputs.x, inputs.weight, inputs.bias):
                leaf.copy_(torch.randn(leaf.shape))
        for name, leaf in leaves.items():
            leaf.requires_grad_(trained or name in kept)
        convolved_pass(inputs, leaves['weight'], leaves['bias']).square().sum().backward()
        found.append({name: leaves[name].grad for name in kept})
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, msg=name)


@needs_library
@pytest.mark.parametrize('case', CASES)
def test_operators_are_registered_as_they_behave(case):
    inputs = CASES[case]((2, 6, 5, 7), activation='gelu')
    given = [value.contiguous(memory_format=torch.channels_last).detach().requires_grad_()
             if isinstance(value, Tensor) and value.dim() == 4 and value.shape[1] > 1 else value for value in inputs]
    operator = (torch.ops.mmmamba.norm_gate if isinstance(inputs, NormGateInputs)
                else torch.ops.mmmamba.gated_depthwise)
    torch.library.opcheck(operator, given)


@needs_library
@pytest.mark.parametrize('case', CASES)
def test_what_the_kernels_cannot_differentiate_is_refused_or_left_to_pytorch(case):
    inputs = cast(CASES[case]((1, 4, 3, 3), activation='silu'), torch.float32, torch.float32)
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(fused_pass(inputs, backend='cpu').square().sum(), inputs.x, create_graph=True)
    first, = torch.autograd.grad(fused_pass(inputs, backend='torch').square().sum(), inputs.x, create_graph=True)
    assert torch.autograd.grad(first.sum(), inputs.x)[0].any()
    with forward_ad.dual_level():
        dual = inputs._replace(x=forward_ad.make_dual(inputs.x.detach(), torch.randn_like(inputs.x)))
        assert forward_ad.unpack_dual(fused_pass(dual)).tangent.any()
        with pytest.raises(RuntimeError, match='forward mode'):
            fused_pass(dual, backend='cpu')
    by_transform = grad(lambda x: fused_pass(inputs._replace(x=x)).square().sum())(inputs.x.detach())
    expected, = torch.autograd.grad(fused_pass(inputs, backend='cpu').square().sum(), inputs.x)
    torch.testing.assert_close(by_transform, expected)


@pytest.mark.parametrize('case, wrong, message', [
    ('norm_gate', dict(weight=torch.ones(5)), 'weight'),
    ('norm_gate', dict(gate=torch.ones(1, 4, 3, 2)), 'gate'),
    ('gated_depthwise', dict(bias=torch.ones(3)), 'bias'),
    ('gated_depthwise', dict(weight=torch.ones(4, 1, 3, 2)), 'weight'),
    ('gated_depthwise', dict(x=torch.ones(1, 6, 3, 3)), 'x must be'),
])
def test_wrong_shapes_are_named(case, wrong, message):
    with pytest.raises(ValueError, match=f'{case}: {message}'):
        fused_pass(CASES[case]((1, 4, 3, 3), activation='gelu')._replace(**wrong))


@needs_library
def test_the_kernels_refuse_what_they_would_misread():
    inputs = norm_gate_case((1, 4, 3, 3), True, True, 'gelu')
    with pytest.raises(ValueError, match='torch.float32 tensor'):
        passes.norm_gate(inputs._replace(gate=inputs.gate.half()))
    with pytest.raises(ValueError, match='torch.float32 tensor'):
        passes.norm_gate(inputs._replace(weight=inputs.weight.double()))


BLOCKS = {
    'odss': lambda: ODSSBlock(12, 12),
    'odss_local': lambda: ODSSBlock(12, 20, num_ss2d=2, local_spatial=True),
    'odss_drop': lambda: ODSSBlock(12, 12, drop_path=0.3),
    'odss_checkpointed': lambda: ODSSBlock(12, 12, with_cp=True),
    'odss_mlp': lambda: ODSSBlock(12, 12, mlp='mlp'),
    'vss': lambda: VSSBlock(12, d_state=2),
    'vss_drop': lambda: VSSBlock(12, drop_path=0.3),
}


@pytest.mark.parametrize('block', BLOCKS)
@pytest.mark.parametrize('dtype', [None, torch.bfloat16, torch.float16], ids=str)
def test_blocks_train_as_plain_ones(block, dtype):
    """One step from the same weights, in float16 with a scaled loss: output, gradients of input and parameters."""
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**12, enabled=dtype == torch.float16)
    plain, fused, x = BLOCKS[block](), BLOCKS[block](), torch.randn(2, 12, 9, 7)
    fused.load_state_dict(plain.state_dict())
    fuse_for_training(fused)
    assert type(fused) is not type(plain)
    found = []
    for model in (plain, fused):
        torch.manual_seed(1)  # of stochastic depth
        given = x.clone().requires_grad_()
        with torch.autocast('cpu', dtype, enabled=dtype is not None):
            y = model.train()(given)
        scaler.scale(y.float().square().mean()).backward()
        found.append({'y': y, 'x': given.grad, **{name: p.grad for name, p in model.named_parameters()}})
    # Of short types both round, each at other places.
    tolerance = {None: 3e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype]
    scale = max(value.norm() for name, value in found[0].items() if name not in ('y', 'x'))
    for name, expected in found[0].items():
        error = (found[1][name] - expected).norm()
        assert error <= tolerance * max(expected.norm(), 2e-2 * scale), (name, float(error), float(expected.norm()))
        assert found[1][name].dtype == expected.dtype


@pytest.mark.parametrize('short', [False, True])
@torch.no_grad()
def test_weights_that_an_average_swaps_in_are_used(short):
    """Through .data, as hooks with averaged weights do: no version of a tensor tells."""
    first, second, x = BLOCKS['odss'](), BLOCKS['odss'](), torch.randn(2, 12, 9, 7)
    if short:
        first, second, x = first.bfloat16(), second.bfloat16(), x.bfloat16()
    fused = copy.deepcopy(fuse_for_training(first)).eval()
    fused(x)
    for parameter, other in zip(fused.parameters(), second.parameters()):
        parameter.data.copy_(other.data)
    assert torch.equal(fused(x), fuse_for_training(second).eval()(x))


@pytest.mark.parametrize('block', ['odss', 'vss'])
def test_fused_blocks_train_compiled(block):
    """In Inductor, which relies on the memory layout that the operators announce."""
    model, found = fuse_for_training(BLOCKS[block]()), []
    x = torch.randn(2, 12, 9, 7).contiguous(memory_format=torch.channels_last)
    for run in (model, torch.compile(model, dynamic=False, fullgraph=True)):
        run(x).square().mean().backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad(set_to_none=True)
    scale = max(value.norm() for value in found[0].values())
    for name, expected in found[0].items():
        assert (found[1][name] - expected).norm() <= 1e-4 * max(expected.norm(), 1e-2 * scale), name


@needs_library
def test_a_training_step_keeps_no_more_than_a_plain_one():
    def kept(model: nn.Module) -> int:
        storages = {}

        def pack(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = model(x)
        assert outputs.requires_grad
        return sum(storages.values())

    x = torch.randn(2, 32, 40, 40).contiguous(memory_format=torch.channels_last).requires_grad_()
    model = ODSSBlock(32, 32).to(memory_format=torch.channels_last).train()
    before = kept(model)
    assert kept(fuse_for_training(model)) <= 1.01 * before
