"""What is between the 1x1 convolutions of a block, forward and backward: calls of the native kernels with maps.

The structures mirror blocks.h.
"""
from __future__ import annotations

from ctypes import Structure, c_int64, c_void_p
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from mmmamba.ops.cpu import native
from mmmamba.ops.cpu.blocks import ACTIVATIONS, LayerNorm, Stencil, channels_last, dense, empty_map, run
from mmmamba.ops.cpu.native import TYPES, addresses

ITEMS = 4
"""Of work for each thread, so that one that is held up does not hold up the others."""


class NormGateInputs(NamedTuple):
    """What a layer norm with a gate takes: ``LN(x) · activation(gate)``, each part if it is given.

    Attributes:
        x: Map (batch, channels, height, width), float32, float16 or bfloat16.
        weight: γ of the norm over the channels of a pixel (channels,), float32; None for no norm.
        bias: β of the norm (channels,), float32, with ``weight``.
        gate: Shaped as ``x``, of ``dtype``.
        eps: ε of the norm.
        activation: 'gelu' (the exact one), 'silu', 'relu', or None.
        dtype: Of the result; everything in between is float32.
    """

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    gate: Tensor | None
    eps: float
    activation: str | None
    dtype: torch.dtype


class GatedDepthwiseInputs(NamedTuple):
    """What a depthwise 3x3 convolution with a gate takes::

        h, v = split(x)                                     without twice the channels of ``weight``, h is x
        activation(weight ∗ h + bias + h) · v               "+ h" with ``skip``

    Attributes:
        x: Map (batch, channels or 2 channels, height, width), float32, float16 or bfloat16.
        weight: (channels, 1, 3, 3), float32.
        bias: (channels,), float32, or None.
        skip: Whether the convolution has a residual.
        activation: 'gelu' (the exact one), 'silu', 'relu', or None.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    skip: bool
    activation: str | None


Inputs = TypeVar('Inputs', NormGateInputs, GatedDepthwiseInputs)


class NormGate(Structure):
    """NormGate of blocks.h."""

    _fields_ = [
        *((name, c_int64) for name in ('pixels', 'channels', 'parts', 'activation', 'input_type', 'type')),
        ('input', c_void_p),
        ('norm', LayerNorm),
        *((name, c_void_p) for name in ('gate', 'output', 'grad_output', 'grad_input', 'grad_gate', 'grad_norm')),
    ]


class GatedDepthwise(Structure):
    """GatedDepthwise of blocks.h."""

    _fields_ = [
        *((name, c_int64) for name in ('batch', 'height', 'width', 'channels', 'gated', 'strips')),
        *((name, c_int64) for name in ('activation', 'type')),
        ('input', c_void_p),
        ('stencil', Stencil),
        *((name, c_void_p) for name in ('output', 'grad_output', 'grad_input', 'grad_weight')),
    ]


def norm_gate(inputs: NormGateInputs) -> Tensor:
    """Returns the gated norm, of ``inputs.dtype`` and in channels_last memory."""
    inputs = _dense(inputs)
    x, gate = channels_last(inputs.x), channels_last(inputs.gate)
    output = torch.empty_like(x, dtype=inputs.dtype)
    if x.numel():
        run('norm_gate', _norm_gate(inputs, x, gate, output, None, None, None, None))
    return output


def norm_gate_backward(grad: Tensor, inputs: NormGateInputs, again: bool) -> tuple[Tensor, ...]:
    """Returns the gradients of x, weight, bias and gate, an empty tensor for one that is None, and the result.

    Args:
        grad: Gradient of the result, shaped as ``inputs.x`` and of ``inputs.dtype``.
        inputs: Of :func:`norm_gate`.
        again: Whether the result is wanted again; without it, the last tensor is empty.
    """
    inputs = _dense(inputs)
    x, gate, grad = channels_last(inputs.x), channels_last(inputs.gate), channels_last(grad)
    channels = x.shape[1]
    grad_x, grad_gate = torch.empty_like(x), None if gate is None else torch.empty_like(gate)
    output = torch.empty_like(grad) if again else None
    grad_norm = x.new_zeros(_parts(x), 2, channels, dtype=torch.float32)
    if x.numel():
        run('norm_gate_backward', _norm_gate(inputs, x, gate, output, grad, grad_x, grad_gate, grad_norm))
    grad_weight, grad_bias = (None, None) if inputs.weight is None else (part.sum(0) for part in grad_norm.unbind(1))
    return given(x, grad_x, grad_weight, grad_bias, grad_gate, output)


def gated_depthwise(inputs: GatedDepthwiseInputs) -> Tensor:
    """Returns (batch, channels, height, width), of the dtype of ``inputs.x`` and in channels_last memory."""
    inputs = _dense(inputs)
    x = channels_last(inputs.x)
    output = empty_map(x, inputs.weight.shape[0])
    if output.numel():
        run('gated_depthwise', _gated_depthwise(inputs, x, output, None, None, None))
    return output


def gated_depthwise_backward(grad: Tensor, inputs: GatedDepthwiseInputs, again: bool) -> tuple[Tensor, ...]:
    """Returns the gradients of x, weight and bias, an empty tensor for one that is None, and the result.

    Args:
        grad: Gradient of the result, shaped as it and of the dtype of ``inputs.x``.
        inputs: Of :func:`gated_depthwise`.
        again: Whether the result is wanted again; without it, the last tensor is empty.
    """
    inputs = _dense(inputs)
    x, grad, channels = channels_last(inputs.x), channels_last(grad), inputs.weight.shape[0]
    grad_x, output = torch.empty_like(x), torch.empty_like(grad) if again else None
    sums = x.new_zeros(x.shape[0] * _strips(x), channels, 10, dtype=torch.float32)  # nine weights and the bias
    if grad.numel():
        run('gated_depthwise_backward', _gated_depthwise(inputs, x, output, grad, grad_x, sums))
    sums = sums.sum(0)
    grad_bias = None if inputs.bias is None else sums[:, 9].clone()
    return given(x, grad_x, sums[:, :9].contiguous().view(channels, 1, 3, 3), grad_bias, output)


def given(like: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Returns the tensors, an empty one for None."""
    return tuple(like.new_empty(0) if tensor is None else tensor for tensor in tensors)


def _dense(inputs: Inputs) -> Inputs:
    """Returns the inputs with contiguous parameters."""
    return inputs._replace(weight=dense(inputs.weight), bias=dense(inputs.bias))


def _norm_gate(inputs: NormGateInputs, x: Tensor, gate: Tensor | None, output: Tensor | None, grad: Tensor | None,
               grad_x: Tensor | None, grad_gate: Tensor | None, grad_norm: Tensor | None) -> NormGate:
    batch, channels, height, width = x.shape
    x_at, grad_x_at = addresses((x, grad_x), x.dtype, torch.channels_last)
    gate_at, output_at, grad_at, grad_gate_at = addresses(
        (gate, output, grad, grad_gate), inputs.dtype, torch.channels_last)
    *norm_at, grad_norm_at = addresses((inputs.weight, inputs.bias, grad_norm))
    return NormGate(
        batch * height * width, channels, _parts(x), ACTIVATIONS.index(inputs.activation), TYPES[x.dtype],
        TYPES[inputs.dtype], x_at, LayerNorm(*norm_at, inputs.eps), gate_at, output_at, grad_at, grad_x_at,
        grad_gate_at, grad_norm_at)


def _gated_depthwise(inputs: GatedDepthwiseInputs, x: Tensor, output: Tensor | None, grad: Tensor | None,
                     grad_x: Tensor | None, sums: Tensor | None) -> GatedDepthwise:
    batch, _, height, width = x.shape
    channels = inputs.weight.shape[0]
    x_at, output_at, grad_at, grad_x_at = addresses((x, output, grad, grad_x), x.dtype, torch.channels_last)
    weight_at, bias_at, sums_at = addresses((inputs.weight, inputs.bias, sums))
    return GatedDepthwise(
        batch, height, width, channels, x.shape[1] > channels, _strips(x), ACTIVATIONS.index(inputs.activation),
        TYPES[x.dtype], x_at, Stencil(weight_at, bias_at, inputs.skip), output_at, grad_at, grad_x_at, sums_at)


def _parts(x: Tensor) -> int:
    """Returns into how many runs the pixels are cut."""
    return max(1, min(x.shape[0] * x.shape[2] * x.shape[3], ITEMS * native.threads()))


def _strips(x: Tensor) -> int:
    """Returns into how many strips the rows of an image are cut: each reads a row more at either end."""
    batch, channels, height, _ = x.shape
    groups = max(1, batch * -(-channels // 64))
    return max(1, min(height // 4, -(-ITEMS * native.threads() // groups)))
