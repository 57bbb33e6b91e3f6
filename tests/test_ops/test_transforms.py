"""Forward mode, second derivatives and the transforms of torch.func: right, or refused in a sentence."""
from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Callable

import pytest
import torch
from scan_cases import cast, selective_inputs, ss2d_inputs
from torch import Tensor
from torch.autograd import forward_ad, functional
from torch.func import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

from mmmamba.ops import selective_scan, ss2d_scan
from mmmamba.ops.scan.selective_scan import BACKENDS

Inputs = Mapping[str, Tensor]
SCANS = {
    'selective': (partial(selective_scan, delta_softplus=True), selective_inputs(2, 4, 5, 2, 2)),
    'gated': (
        partial(selective_scan, delta_softplus=True),
        {**selective_inputs(2, 4, 5, 2, 1), 'z': torch.linspace(-2, 2, 40, dtype=torch.float64).view(2, 4, 5)},
    ),
    'cross': (partial(ss2d_scan, pattern='cross'), ss2d_inputs(2, 3, 2, 3, 2, 1)),
    'atrous': (partial(ss2d_scan, pattern='atrous'), ss2d_inputs(2, 3, 3, 2, 2, 1)),
}
scans = pytest.mark.parametrize('scan, inputs', SCANS.values(), ids=SCANS)
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)


def float32(inputs: Inputs) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in cast(inputs, torch.float32).items()}


def directions(tensors: Inputs) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}


def called(scan: Callable[..., Tensor]) -> Callable[[Inputs], Tensor]:
    return lambda inputs: scan(**inputs)


def by_jvp(scan: Callable[..., Tensor], inputs: Inputs, tangents: Inputs) -> Tensor:
    return jvp(called(scan), (inputs,), (tangents,))[1]


def by_linearize(scan: Callable[..., Tensor], inputs: Inputs, tangents: Inputs) -> Tensor:
    return linearize(called(scan), inputs)[1](tangents)


def by_dual_tensors(scan: Callable[..., Tensor], inputs: Inputs, tangents: Inputs) -> Tensor:
    with forward_ad.dual_level():
        dual = {name: forward_ad.make_dual(tensor, tangents[name]) for name, tensor in inputs.items()}
        return forward_ad.unpack_dual(scan(**dual)).tangent


@pytest.mark.parametrize('tangent', [by_jvp, by_linearize, by_dual_tensors])
@scans
def test_forward_mode_is_the_adjoint_of_the_backward_pass(scan, inputs, tangent):
    """⟨w, J v⟩ = ⟨Jᵀ w, v⟩, where the right-hand side is the fastest backend's."""
    inputs = float32(inputs)
    tangents = directions(inputs)
    got = tangent(scan, inputs, tangents)
    leaves = cast(inputs, torch.float32)
    y = scan(**leaves)
    w = directions({'w': y})['w']
    gradients = torch.autograd.grad(y, list(leaves.values()), w)
    expected = sum((g.double() * v.double()).sum() for g, v in zip(gradients, tangents.values()))
    close((w.double() * got.double()).sum(), expected)


def loss(scan: Callable[..., Tensor], inputs: Inputs) -> Tensor:
    return scan(**inputs).square().sum()


@scans
def test_reverse_transforms_have_the_gradient_of_the_backward_pass(scan, inputs):
    leaves = cast(inputs, torch.float32)
    value = loss(scan, leaves)
    expected = dict(zip(leaves, torch.autograd.grad(value, list(leaves.values()))))
    inputs = float32(inputs)
    for got in (grad(partial(loss, scan))(inputs), vjp(partial(loss, scan), inputs)[1](torch.tensor(1.))[0]):
        for name, gradient in expected.items():
            close(got[name], gradient, msg=lambda text, name=name: f'{name}: {text}')


@scans
def test_gradients_of_each_sample(scan, inputs):
    inputs = float32(inputs)
    batched = {name for name, tensor in inputs.items() if name in ('x', 'u', 'delta', 'B', 'C', 'z')}

    def sample_loss(sample: Inputs) -> Tensor:
        return loss(scan, {name: t.unsqueeze(0) if name in batched else t for name, t in sample.items()})

    axes = ({name: 0 if name in batched else None for name in inputs},)
    got = vmap(grad(sample_loss), in_dims=axes)(inputs)
    for i in range(2):
        leaves = cast({name: t[i] if name in batched else t for name, t in inputs.items()}, torch.float32)
        gradients = torch.autograd.grad(sample_loss(leaves), list(leaves.values()))
        for name, gradient in zip(leaves, gradients):
            close(got[name][i], gradient, msg=lambda text, name=name: f'{name}: {text}')


@scans
def test_second_derivatives_agree_however_they_are_nested(scan, inputs):
    first, *others = inputs
    inputs = {name: tensor[:1] if name in ('x', 'u', 'delta', 'B', 'C', 'z') else tensor
              for name, tensor in inputs.items()}
    x, rest = inputs[first], {name: inputs[name] for name in others}
    v = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view(x.shape)

    def of_first(x: Tensor, **options: str) -> Tensor:
        return loss(partial(scan, **options), {first: x, **rest})

    def hessian_of(make: Callable[..., Callable[[Tensor], Tensor]]) -> Tensor:
        return make(of_first)(x).reshape(v.numel(), v.numel()) @ v.flatten()

    expected = functional.hvp(partial(of_first, backend='reference'), x, v)[1].flatten()
    assert expected.abs().max() > 0
    for got in (
        jvp(grad(of_first), (x,), (v,))[1].flatten(),
        grad(lambda x: jvp(of_first, (x,), (v,))[1])(x).flatten(),
        hessian_of(hessian),
        hessian_of(lambda f: jacrev(jacfwd(f))),
        hessian_of(lambda f: jacfwd(jacfwd(f))),
    ):
        torch.testing.assert_close(got, expected)


TRANSFORMS = {
    'jvp': lambda f, x: jvp(f, (x,), (x,)),
    'linearize': lambda f, x: linearize(f, x),
    'grad': lambda f, x: grad(lambda x: f(x).sum())(x),
    'vjp': lambda f, x: vjp(f, x),
    'jacrev': lambda f, x: jacrev(f)(x),
    'jacfwd': lambda f, x: jacfwd(f)(x),
    'hessian': lambda f, x: hessian(f)(x),
    'vmap': lambda f, x: vmap(lambda scale: f(scale * x))(torch.ones(2)),
    'forward-mode jacobian': lambda f, x: functional.jacobian(f, x, strategy='forward-mode', vectorize=True),
    # Not even of something constant: which tensors have a tangent cannot be seen inside every transform.
    'a constant': lambda f, x: jvp(lambda scale: scale * f(x), (torch.ones(()),), (torch.ones(()),)),
}


@pytest.mark.parametrize('transform', TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize('backend', ['cpu', 'triton', 'torch'])
@scans
def test_a_named_backend_refuses_and_says_which_one_can(scan, inputs, backend, transform, requires):
    requires(backend)
    first, *others = inputs = float32(inputs)
    rest = {name: inputs[name] for name in others}
    reason = 'It has no forward-mode derivative|It does not run inside transforms of torch.func'
    with pytest.raises(RuntimeError, match=f'{backend}: ({reason}).*Able to: reference.'):
        transform(lambda x: scan(**{first: x}, **rest, backend=backend), inputs[first])


@pytest.mark.parametrize('backend', ['cpu', 'torch'])
@scans
def test_derivatives_of_a_backward_pass_are_refused(scan, inputs, backend):
    leaves = cast(inputs, torch.float32)
    x, *_ = leaves.values()
    value = loss(partial(scan, backend=backend), leaves)
    with pytest.raises(RuntimeError, match='no second derivative .*backend="reference"'):
        torch.autograd.grad(value, x, create_graph=True)
    y = scan(**leaves, backend=backend)
    with forward_ad.dual_level():
        incoming = forward_ad.make_dual(torch.ones_like(y), torch.ones_like(y))
        with pytest.raises(RuntimeError, match='no second derivative .*backend="reference"'):
            torch.autograd.grad(y, x, incoming)


def test_the_operator_refuses_forward_mode(requires):
    requires('cpu')
    u, A, B = torch.ones(1, 4, 6), -torch.ones(4, 2), torch.ones(1, 1, 2, 6)

    def operator(x: Tensor) -> Tensor:
        return BACKENDS[0].run(x, u, A, B, B, None, None, True)[0]

    assert operator(u).abs().max() > 0
    # PyTorch 2.4 refuses the operators itself, in all of its transforms.
    words = 'no forward-mode derivative' if torch.__version__ >= '2.11' else 'with functorch transforms'
    with pytest.raises(RuntimeError, match=words):
        jvp(operator, (u,), (u,))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match='no forward-mode derivative'):
        operator(forward_ad.make_dual(u, u))


@pytest.mark.parametrize('scan, inputs', [
    (selective_scan, selective_inputs(1, 2, 3, 2, 1)),
    (ss2d_scan, ss2d_inputs(1, 2, 1, 2, 1, 1)),  # small: what is traced has every step
])
def test_compiled_scans_choose_anew_in_forward_mode(scan, inputs):
    first, *others = inputs = float32(inputs)
    x, rest = inputs[first], {name: inputs[name] for name in others}

    def of_first(x: Tensor) -> Tensor:
        return scan(**{first: x}, **rest)

    def tangent(x: Tensor) -> Tensor:
        return jvp(of_first, (x,), (x,))[1]

    compiled, expected = torch.compile(of_first, fullgraph=True, backend='aot_eager'), tangent(x)
    close(compiled(x), of_first(x))
    with forward_ad.dual_level():
        close(forward_ad.unpack_dual(compiled(forward_ad.make_dual(x, x))).tangent, expected)
    close(compiled(x), of_first(x))
    close(torch.compile(tangent, fullgraph=True, backend='aot_eager')(x), expected)
