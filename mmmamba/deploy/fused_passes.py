"""What is between the 1x1 convolutions of the papers' blocks, in one pass each, forward and backward.

A gated norm and a gated depthwise convolution have native kernels on a CPU and PyTorch operations for everything else,
chosen as the scans' backends are: see :mod:`mmmamba.ops.dispatch`. Blocks of them and PyTorch's own convolutions
train, follow autocast, and keep bfloat16 maps in memory; the convolutions run on the matrix units that oneDNN finds.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.layers.common import layer_norm_2d, recomputed
from mmmamba.ops.checks import given_tensors
from mmmamba.ops.cpu import blocks, passes
from mmmamba.ops.cpu.passes import GatedDepthwiseInputs, NormGateInputs
from mmmamba.ops.dispatch import (
    FLOAT32_AND_HALVES,
    FLOATS,
    Backend,
    refuse_second_derivative,
    refusing_forward_mode,
    register_flops,
    select,
)

ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = dict(
    zip(blocks.ACTIVATIONS, (lambda x: x, F.gelu, F.silu, F.relu)))  # older PyTorch traces no read-only mapping


Inputs = Union[NormGateInputs, GatedDepthwiseInputs]


def fused_pass(inputs: Inputs, *, backend: str | None = None) -> Tensor:
    """Computes what ``inputs`` describe.

    Args:
        inputs: Maps, parameters and what is to be done with them. Parameters of a shorter dtype are widened.
        backend: Name of the backend; None for the first that can run these inputs.

    Returns:
        (batch, channels, height, width).

    Raises:
        ValueError: Shapes do not fit, or no backend has this name.
        RuntimeError: The named backend cannot run these inputs.
    """
    return _select(inputs, backend).run(*inputs)


def convolved_pass(inputs: Inputs, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Computes a 1x1 convolution of a pass's result, and keeps ``inputs`` alone for the backward pass.

    Args:
        inputs: Of :func:`fused_pass`.
        weight: (outputs, channels, 1, 1); it is rounded to the dtype of the pass's result.
        bias: (outputs,), likewise, or None.

    Returns:
        (batch, outputs, height, width).

    Raises:
        ValueError: Shapes do not fit.
    """
    run = _select(inputs, None).run
    dtype = inputs.dtype if isinstance(inputs, NormGateInputs) else inputs.x.dtype
    weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if isinstance(run, _Native) and torch.is_grad_enabled() and not traced:
        return _ConvolvedPass.apply(run, weight, bias, *_widened(inputs))
    return recomputed(lambda x: F.conv2d(run(*inputs._replace(x=x)), weight, bias), inputs.x)


def _select(inputs: Inputs, backend: str | None) -> Backend:
    """Returns the backend that is to run a pass, after a look at the shapes."""
    batch, channels, *size = inputs.x.shape
    if isinstance(inputs, NormGateInputs):
        given = given_tensors('norm_gate', (
            ('x', inputs.x, inputs.x.shape),
            ('weight', inputs.weight, (channels, )),
            ('bias', inputs.bias, (channels, )),
            ('gate', inputs.gate, inputs.x.shape),
        ))
        return select('norm_gate', NORM_GATE, [*given, inputs.x.new_empty(0, dtype=inputs.dtype)], backend)
    convolved = inputs.weight.shape[0]
    given = given_tensors('gated_depthwise', (
        ('x', inputs.x, (batch, convolved if channels == convolved else 2 * convolved, *size)),
        ('weight', inputs.weight, (convolved, 1, 3, 3)),
        ('bias', inputs.bias, (convolved, )),
    ))
    return select('gated_depthwise', GATED_DEPTHWISE, given, backend)


def _norm_gate_in_torch(*arguments: Any) -> Tensor:
    inputs = NormGateInputs(*arguments)
    x = inputs.x
    if inputs.weight is not None and inputs.bias is not None:
        x = layer_norm_2d(x, inputs.weight, inputs.bias, inputs.eps)
    if inputs.gate is not None:
        x = x * ACTIVATIONS[inputs.activation](inputs.gate)
    return x.to(inputs.dtype)


def _gated_depthwise_in_torch(*arguments: Any) -> Tensor:
    inputs = GatedDepthwiseInputs(*arguments)
    h, *gate = inputs.x.split(inputs.weight.shape[0], dim=1)
    y = F.conv2d(h, inputs.weight, inputs.bias, padding=1, groups=h.shape[1])
    y = ACTIVATIONS[inputs.activation](y + h if inputs.skip else y)
    return y * gate[0] if gate else y


@dataclass(frozen=True)
class _Native:
    """A pass as PyTorch's operators."""

    operator: Callable[..., Tensor]
    backward: Callable[..., tuple[Tensor, ...]]  # of the gradient, the arguments, and whether the result is wanted
    tensors: int  # so many arguments are tensors, the first ones

    def __call__(self, *arguments: Any) -> Tensor:
        return self.operator(*_widened(arguments))


def _widened(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Returns the arguments of a pass with its parameters, the second and the third, in float32."""
    x, weight, bias, *others = arguments
    return x, *(None if parameter is None else parameter.float() for parameter in (weight, bias)), *others


def _register(
    name: str,
    inputs_type: type[NormGateInputs] | type[GatedDepthwiseInputs],
    forward: Callable[[Any], Tensor],
    backward: Callable[[Tensor, Any, bool], tuple[Tensor, ...]],
    output: Callable[[Any], Tensor],
    flops_per_element: int,
) -> _Native:
    """Registers ``mmmamba::<name>`` and ``mmmamba::<name>_backward``.

    Args:
        name: Of the operator.
        inputs_type: What its arguments are, tensors first: a map, a weight, a bias.
        forward: Runs the kernel.
        backward: Takes the gradient of the result, the inputs, and whether the result is wanted again; returns the
            gradients of the tensors, and the result.
        output: Returns an uninitialised result.
        flops_per_element: Of the result, as PyTorch's convolutions count them.
    """
    qualified, tags = f'mmmamba::{name}', (torch.Tag.pt2_compliant_tag, )
    kinds = {'Tensor': 'Tensor', 'Tensor | None': 'Tensor?', 'float': 'float', 'str | None': 'str?', 'bool': 'bool',
             'torch.dtype': 'ScalarType'}
    types = [kinds[kind.__forward_arg__] for kind in inputs_type.__annotations__.values()]
    fields = ', '.join(map(' '.join, zip(types, inputs_type._fields)))
    tensors = sum(kind.startswith('Tensor') for kind in types)
    results = ', '.join(['Tensor'] * (tensors + 1))
    torch.library.define(qualified, f'({fields}) -> Tensor', tags=tags)
    torch.library.define(f'{qualified}_backward', f'(Tensor grad, {fields}, bool again) -> ({results})', tags=tags)
    operator, backward_operator = (getattr(torch.ops.mmmamba, name + suffix).default for suffix in ('', '_backward'))

    torch.library.impl(qualified, 'cpu', refusing_forward_mode(lambda *arguments: forward(inputs_type(*arguments))))
    torch.library.impl(f'{qualified}_backward', 'cpu', refusing_forward_mode(
        lambda grad, *arguments: backward(grad, inputs_type(*arguments[:-1]), arguments[-1])))
    torch.library.register_fake(qualified, lambda *arguments: output(inputs_type(*arguments)))

    @torch.library.register_fake(f'{qualified}_backward')
    def _(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        x, weight, bias, *gate = arguments[:tensors]
        x, result, *gate = (
            None if tensor is None else torch.empty_like(tensor, memory_format=torch.channels_last)
            for tensor in (x, grad if arguments[-1] else None, *gate))
        weight, bias = (
            None if tensor is None else torch.empty_like(tensor, memory_format=torch.contiguous_format)
            for tensor in (weight, bias))
        return passes.given(grad, x, weight, bias, *gate, result)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.options = inputs[tensors:]

    def differentiate(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        refuse_second_derivative('torch')
        saved = ctx.saved_tensors
        gradients = backward_operator(grad, *saved, *ctx.options, False)
        wanted = [None if tensor is None else gradient for tensor, gradient in zip(saved, gradients)]
        return *wanted, *(None, ) * len(ctx.options)

    torch.library.register_autograd(qualified, differentiate, setup_context=setup_context)
    register_flops(getattr(torch.ops.mmmamba, name), lambda *_, out_shape, **__: flops_per_element * _size(out_shape))
    register_flops(getattr(torch.ops.mmmamba, f'{name}_backward'),
                   lambda grad, *_, **__: 2 * flops_per_element * _size(grad))
    return _Native(operator, backward_operator, tensors)


def _size(shape: Any) -> int:
    return torch.Size(shape).numel()


_native_norm_gate = _register(
    'norm_gate', NormGateInputs, passes.norm_gate, passes.norm_gate_backward,
    output=lambda inputs: torch.empty_like(inputs.x, dtype=inputs.dtype, memory_format=torch.channels_last),
    flops_per_element=0)
_native_gated_depthwise = _register(
    'gated_depthwise', GatedDepthwiseInputs, passes.gated_depthwise, passes.gated_depthwise_backward,
    output=lambda inputs: blocks.empty_map(inputs.x, inputs.weight.shape[0]),
    flops_per_element=2 * 9)


class _ConvolvedPass(torch.autograd.Function):
    """A native pass and the 1x1 convolution after it, for which the pass's arguments alone are kept.

    The backward pass makes the pass's result again, for the gradient of the weight, along with its gradients.
    """

    @staticmethod
    def forward(ctx: Any, native: _Native, weight: Tensor, bias: Tensor | None, *arguments: Any) -> Tensor:
        ctx.native, ctx.options = native, arguments[native.tensors:]
        ctx.save_for_backward(weight, *arguments[:native.tensors])
        return F.conv2d(native.operator(*arguments), weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        refuse_second_derivative('torch')
        weight, *tensors = ctx.saved_tensors
        _, of_weight, of_bias, *of_pass = ctx.needs_input_grad
        grad_weight, grad_bias, gradients = None, None, [None] * len(tensors)
        with torch.autocast('cpu', enabled=False):
            if any(of_pass):
                grad_result = F.conv2d(grad, weight.transpose(0, 1))
                *gradients, result = ctx.native.backward(grad_result, *tensors, *ctx.options, of_weight)
            elif of_weight:
                result = ctx.native.operator(*tensors, *ctx.options)
            if of_weight:
                _, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
                    grad, result, weight, [weight.shape[0]], [1, 1], [0, 0], [1, 1], False, [0, 0], 1,
                    (False, True, of_bias))
            elif of_bias:
                grad_bias = grad.sum((0, 2, 3))
        wanted = [None if tensor is None else gradient for tensor, gradient in zip(tensors, gradients)]
        return None, grad_weight, grad_bias, *wanted, *(None, ) * len(ctx.options)


NORM_GATE = (
    Backend('cpu', _native_norm_gate, FLOAT32_AND_HALVES, ('cpu', ), blocks.unavailable),
    Backend('torch', _norm_gate_in_torch, FLOATS, transformable=True),
)
GATED_DEPTHWISE = (
    Backend('cpu', _native_gated_depthwise, FLOAT32_AND_HALVES, ('cpu', ), blocks.unavailable),
    Backend('torch', _gated_depthwise_in_torch, FLOATS, transformable=True),
)
