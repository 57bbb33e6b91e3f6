"""What is between the 1x1 convolutions of the papers' blocks, in one pass each, forward and backward.

``norm_gate`` and ``gated_depthwise`` have native kernels on a CPU and PyTorch operations for everything else, chosen
as the scans' backends are: see :mod:`mmmamba.ops.dispatch`. Blocks of them and PyTorch's own convolutions train,
follow autocast, and keep bfloat16 maps in memory; the convolutions run on the matrix units that oneDNN finds.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def norm_gate(inputs: NormGateInputs, *, backend: str | None = None) -> Tensor:
    """Computes ``LN(x) · activation(gate)``, each part if it is given, in the dtype that ``inputs`` names.

    Args:
        inputs: Maps, parameters and what is to be done with them. Parameters of a shorter dtype are widened.
        backend: Name of the backend; None for the first that can run these inputs.

    Returns:
        Shaped as ``inputs.x``.

    Raises:
        ValueError: Shapes do not fit, or no backend has this name.
        RuntimeError: The named backend cannot run these inputs.
    """
    x, channels = inputs.x, inputs.x.shape[1]
    given = given_tensors('norm_gate', (
        ('x', x, x.shape),
        ('weight', inputs.weight, (channels, )),
        ('bias', inputs.bias, (channels, )),
        ('gate', inputs.gate, x.shape),
    ))
    chosen = select('norm_gate', NORM_GATE, [*given, x.new_empty(0, dtype=inputs.dtype)], backend)
    return chosen.run(*inputs)


def gated_depthwise(inputs: GatedDepthwiseInputs, *, backend: str | None = None) -> Tensor:
    """Computes a depthwise 3x3 convolution with what comes after it, as :class:`GatedDepthwiseInputs` has it.

    Args:
        inputs: A map, parameters and what is to be done with them. Parameters of a shorter dtype are widened.
        backend: Name of the backend; None for the first that can run these inputs.

    Returns:
        (batch, channels, height, width), of the dtype of ``inputs.x``.

    Raises:
        ValueError: Shapes do not fit, or no backend has this name.
        RuntimeError: The named backend cannot run these inputs.
    """
    x, channels = inputs.x, inputs.weight.shape[0]
    expected = (x.shape[0], channels if x.shape[1] == channels else 2 * channels, *x.shape[2:])
    given = given_tensors('gated_depthwise', (
        ('x', x, expected),
        ('weight', inputs.weight, (channels, 1, 3, 3)),
        ('bias', inputs.bias, (channels, )),
    ))
    return select('gated_depthwise', GATED_DEPTHWISE, given, backend).run(*inputs)


def _norm_gate_in_torch(*arguments: Any) -> Tensor:
    inputs = NormGateInputs(*arguments)

    def compute(x: Tensor, *gate: Tensor) -> Tensor:
        if inputs.weight is not None and inputs.bias is not None:
            x = layer_norm_2d(x, inputs.weight, inputs.bias, inputs.eps)
        for z in gate:
            x = x * ACTIVATIONS[inputs.activation](z)
        return x.to(inputs.dtype)

    return compute(inputs.x) if inputs.gate is None else recomputed(compute, inputs.x, inputs.gate)


def _gated_depthwise_in_torch(*arguments: Any) -> Tensor:
    inputs = GatedDepthwiseInputs(*arguments)

    def compute(x: Tensor) -> Tensor:
        h, *gate = x.split(inputs.weight.shape[0], dim=1)
        y = F.conv2d(h, inputs.weight, inputs.bias, padding=1, groups=h.shape[1])
        y = ACTIVATIONS[inputs.activation](y + h if inputs.skip else y)
        for v in gate:
            y = y * v
        return y

    return recomputed(compute, inputs.x)


def _register(
    name: str,
    inputs_type: type[NormGateInputs] | type[GatedDepthwiseInputs],
    forward: Callable[[Any], Tensor],
    backward: Callable[[Tensor, Any], tuple[Tensor, ...]],
    output: Callable[[Any], Tensor],
    flops_per_element: int,
) -> Callable[..., Tensor]:
    """Registers ``mmmamba::<name>`` and ``mmmamba::<name>_backward`` and returns a differentiable function.

    Args:
        name: Of the operator.
        inputs_type: What its arguments are, tensors first: a map, a weight, a bias.
        forward: Runs the kernel.
        backward: Takes the gradient of the result and the inputs, and returns those of the tensors.
        output: Returns an uninitialised result.
        flops_per_element: Of the result, as PyTorch's convolutions count them.
    """
    qualified, tags = f'mmmamba::{name}', (torch.Tag.pt2_compliant_tag, )
    kinds = {'Tensor': 'Tensor', 'Tensor | None': 'Tensor?', 'float': 'float', 'str | None': 'str?', 'bool': 'bool',
             'torch.dtype': 'ScalarType'}
    types = [kinds[kind.__forward_arg__] for kind in inputs_type.__annotations__.values()]
    fields = ', '.join(map(' '.join, zip(types, inputs_type._fields)))
    tensors = sum(kind.startswith('Tensor') for kind in types)
    torch.library.define(qualified, f'({fields}) -> Tensor', tags=tags)
    torch.library.define(
        f'{qualified}_backward', f'(Tensor grad, {fields}) -> ({", ".join(["Tensor"] * tensors)})', tags=tags)
    operator, backward_operator = (getattr(torch.ops.mmmamba, name + suffix).default for suffix in ('', '_backward'))

    torch.library.impl(qualified, 'cpu', refusing_forward_mode(lambda *arguments: forward(inputs_type(*arguments))))
    torch.library.impl(f'{qualified}_backward', 'cpu', refusing_forward_mode(
        lambda grad, *arguments: backward(grad, inputs_type(*arguments))))
    torch.library.register_fake(qualified, lambda *arguments: output(inputs_type(*arguments)))

    @torch.library.register_fake(f'{qualified}_backward')
    def _(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        return tuple(grad.new_empty(0) if tensor is None else torch.empty_like(
            tensor, memory_format=torch.channels_last if tensor.dim() == 4 else torch.contiguous_format)
            for tensor in arguments[:tensors])

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.options = inputs[tensors:]

    def differentiate(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        refuse_second_derivative('torch')
        saved = ctx.saved_tensors
        gradients = backward_operator(grad, *saved, *ctx.options)
        wanted = [None if tensor is None else gradient for tensor, gradient in zip(saved, gradients)]
        return *wanted, *(None, ) * len(ctx.options)

    torch.library.register_autograd(qualified, differentiate, setup_context=setup_context)
    register_flops(getattr(torch.ops.mmmamba, name), lambda *_, out_shape, **__: flops_per_element * _size(out_shape))
    register_flops(getattr(torch.ops.mmmamba, f'{name}_backward'),
                   lambda grad, *_, **__: 2 * flops_per_element * _size(grad))

    def run(x: Tensor, weight: Tensor | None, bias: Tensor | None, *others: Any) -> Tensor:
        weight, bias = (None if parameter is None else parameter.float() for parameter in (weight, bias))
        return operator(x, weight, bias, *others)

    return run


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

NORM_GATE = (
    Backend('cpu', _native_norm_gate, FLOAT32_AND_HALVES, ('cpu', ), blocks.unavailable),
    Backend('torch', _norm_gate_in_torch, FLOATS, transformable=True),
)
GATED_DEPTHWISE = (
    Backend('cpu', _native_gated_depthwise, FLOAT32_AND_HALVES, ('cpu', ), blocks.unavailable),
    Backend('torch', _gated_depthwise_in_torch, FLOATS, transformable=True),
)
