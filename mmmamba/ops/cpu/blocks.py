"""The blocks around the scan: what their operations take, and calls of the native kernels with channels-last maps.

The structures mirror blocks.h.
"""
from __future__ import annotations

from collections.abc import Sequence
from ctypes import Structure, byref, c_double, c_int64, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor

from mmmamba.ops.cpu import native
from mmmamba.ops.cpu.native import TYPES, addresses

ABI = 4
ACTIVATIONS = (None, 'gelu', 'silu', 'relu')  # in the order of blocks.h; GELU is the exact one


class PointwiseInputs(NamedTuple):
    """What a 1x1 convolution takes, with what comes before and after it in a block, each part if it is given::

        activation(weight ∗ (LN(x) · gate_activation(g)) + bias) + residual     g = gate, or gate_weight ∗ LN(gate)

    LN is the layer norm over the channels of a pixel.

    Attributes:
        x: Map (batch, inputs, height, width). Memory in channels_last spares a copy, in all maps.
        weight: (outputs, inputs, 1, 1).
        bias: (outputs,).
        norm_weight: γ of the layer norm (inputs,); None for no norm.
        norm_bias: β of the layer norm (inputs,), with ``norm_weight``.
        eps: ε of the layer norm.
        gate: (batch, gate inputs, height, width); as many channels as ``x`` unless ``gate_weight`` makes them.
        gate_weight: (inputs, gate inputs, 1, 1).
        gate_norm_weight: γ of the gate's layer norm (gate inputs,), with ``gate_weight``; None for no norm.
        gate_norm_bias: β of the gate's layer norm (gate inputs,), with ``gate_norm_weight``.
        gate_eps: ε of the gate's layer norm.
        gate_activation: As ``activation``.
        activation: 'gelu' (the exact one), 'silu', 'relu', or None.
        residual: (batch, outputs, height, width).
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None
    eps: float = 1e-6
    gate: Tensor | None = None
    gate_weight: Tensor | None = None
    gate_norm_weight: Tensor | None = None
    gate_norm_bias: Tensor | None = None
    gate_eps: float = 1e-6
    gate_activation: str | None = 'gelu'
    activation: str | None = None
    residual: Tensor | None = None


class BottleneckInputs(NamedTuple):
    """What a 1x1, a depthwise 3x3 and a 1x1 convolution take (MobileNetV2, arXiv 1801.04381), each if it is given::

        h, v   = split(expand_weight ∗ LN(x) + expand_bias)               no v without twice the hidden channels
        hidden = activation(depthwise_weight ∗ h + depthwise_bias + h) · v                  "+ h" with ``skip``
        output = reduce_weight ∗ hidden + reduce_bias + residual                        hidden without a reduction

    LN is the layer norm over the channels of a pixel.

    Attributes:
        x: Map (batch, inputs, height, width). Memory in channels_last spares a copy, in all maps.
        expand_weight: (hidden, inputs, 1, 1), or (2 hidden, inputs, 1, 1) for a gate v, with ``reduce_weight``.
        expand_bias: (hidden,) or (2 hidden,), or None.
        depthwise_weight: (hidden, 1, 3, 3).
        depthwise_bias: (hidden,), or None.
        norm_weight: γ of the layer norm (inputs,); None for no norm.
        norm_bias: β of the layer norm (inputs,), with ``norm_weight``.
        eps: ε of the layer norm.
        skip: Whether the depthwise convolution has a residual.
        activation: 'gelu' (the exact one), 'silu', 'relu', or None.
        reduce_weight: (outputs, hidden, 1, 1).
        reduce_bias: (outputs,).
        residual: Shaped as the output.
    """

    x: Tensor
    expand_weight: Tensor
    expand_bias: Tensor | None
    depthwise_weight: Tensor
    depthwise_bias: Tensor | None
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None
    eps: float = 1e-6
    skip: bool = False
    activation: str | None = None
    reduce_weight: Tensor | None = None
    reduce_bias: Tensor | None = None
    residual: Tensor | None = None


class LayerNorm(Structure):
    """LayerNorm of blocks.h."""

    _fields_ = [('weight', c_void_p), ('bias', c_void_p), ('epsilon', c_double)]


class Pointwise(Structure):
    """Pointwise of blocks.h."""

    _fields_ = [
        *((name, c_int64) for name in ('pixels', 'inputs', 'outputs', 'gate_inputs', 'activation', 'gate_activation',
                                       'input_type', 'gate_type', 'type')),
        *((name, c_void_p) for name in ('input', 'weight', 'bias')),
        ('norm', LayerNorm),
        *((name, c_void_p) for name in ('gate', 'gate_weight')),
        ('gate_norm', LayerNorm),
        *((name, c_void_p) for name in ('residual', 'output')),
    ]


class Stencil(Structure):
    """Stencil of blocks.h."""

    _fields_ = [('weight', c_void_p), ('bias', c_void_p), ('skip', c_int64)]


class InvertedBottleneck(Structure):
    """InvertedBottleneck of blocks.h."""

    _fields_ = [
        *((name, c_int64) for name in ('batch', 'height', 'width', 'inputs', 'hidden', 'outputs')),
        *((name, c_int64) for name in ('activation', 'gated', 'threads', 'input_type', 'type')),
        ('input', c_void_p),
        ('norm', LayerNorm),
        *((name, c_void_p) for name in ('expand', 'expand_bias')),
        ('stencil', Stencil),
        *((name, c_void_p) for name in ('reduce', 'reduce_bias', 'residual', 'output')),
    ]


def _reason(loaded: native.Native) -> str | None:
    """Declares the functions of the library, or returns why it cannot be used."""
    if loaded.library is None:
        return loaded.reason
    if not hasattr(loaded.library, 'blocks_abi') or loaded.library.blocks_abi() != ABI:
        return 'The native library belongs to another version of mmmamba; install again to rebuild it.'
    for name in ('pointwise', 'inverted_bottleneck', 'norm_gate', 'norm_gate_backward', 'gated_depthwise',
                 'gated_depthwise_backward'):
        function = getattr(loaded.library, f'blocks_{name}')
        function.restype, function.argtypes = c_int64, [c_void_p, c_int64, c_int64]
    return None


REASON = _reason(native.NATIVE)


def unavailable() -> str | None:
    """Returns why the native kernels cannot run here, or None if they can."""
    return REASON


def pointwise(inputs: PointwiseInputs) -> Tensor:
    """Convolves tensors on the CPU.

    Raises:
        ValueError: x, gate or weights are not float32, float16 or bfloat16, or gate_weight or residual of another
            dtype than the weights, which is that of the result.
    """
    x, gate, residual = map(channels_last, (inputs.x, inputs.gate, inputs.residual))
    weight, gate_weight = map(dense, (inputs.weight, inputs.gate_weight))
    bias, norm_weight, norm_bias, gate_norm_weight, gate_norm_bias = map(dense_float32, (
        inputs.bias, inputs.norm_weight, inputs.norm_bias, inputs.gate_norm_weight, inputs.gate_norm_bias))
    batch, channels, height, width = x.shape
    outputs, dtype = weight.shape[0], weight.dtype
    gate_dtype = dtype if gate is None else gate.dtype
    types = types_of((x.dtype, gate_dtype, dtype))
    output = empty_map(x, outputs, dtype)
    if not output.numel():
        return output
    sizes = (batch * height * width, channels, outputs, 0 if gate_weight is None else gate_weight.shape[1])
    activations = ACTIVATIONS.index(inputs.activation), ACTIVATIONS.index(inputs.gate_activation)
    x_at, = addresses((x,), x.dtype, torch.channels_last)
    gate_at, = addresses((gate,), gate_dtype, torch.channels_last)
    residual_at, output_at = addresses((residual, output), dtype, torch.channels_last)
    weight_at, gate_weight_at = addresses((weight, gate_weight), dtype)
    bias_at, *norm, gate_norm_weight_at, gate_norm_bias_at = addresses(
        (bias, norm_weight, norm_bias, gate_norm_weight, gate_norm_bias))
    run('pointwise', Pointwise(
        *sizes, *activations, *types, x_at, weight_at, bias_at, LayerNorm(*norm, inputs.eps),
        gate_at, gate_weight_at, LayerNorm(gate_norm_weight_at, gate_norm_bias_at, inputs.gate_eps), residual_at,
        output_at))
    return output


def inverted_bottleneck(inputs: BottleneckInputs) -> Tensor:
    """Convolves tensors on the CPU.

    Raises:
        ValueError: x or the weights of the 1x1 convolutions are not float32, float16 or bfloat16, or reduce_weight or
            residual of another dtype than expand_weight, which is that of the result; or there is nothing to reduce.
    """
    x, residual = map(channels_last, (inputs.x, inputs.residual))
    expand, reduce = map(dense, (inputs.expand_weight, inputs.reduce_weight))
    floats = tuple(map(dense_float32, (
        inputs.norm_weight, inputs.norm_bias, inputs.expand_bias, inputs.depthwise_weight, inputs.depthwise_bias,
        inputs.reduce_bias)))
    hidden, dtype = inputs.depthwise_weight.shape[0], expand.dtype
    types = types_of((x.dtype, dtype))
    output = empty_map(x, hidden if reduce is None else reduce.shape[0], dtype)
    if not output.numel():
        return output
    if not hidden:
        raise ValueError('inverted_bottleneck: nothing to reduce, there are no hidden channels.')
    batch, channels, height, width = x.shape
    gated = expand.shape[0] > hidden
    sizes = (batch, height, width, channels, hidden, output.shape[1], ACTIVATIONS.index(inputs.activation), gated)
    x_at, = addresses((x,), x.dtype, torch.channels_last)
    residual_at, output_at = addresses((residual, output), dtype, torch.channels_last)
    expand_at, reduce_at = addresses((expand, reduce), dtype)
    *norm, expand_bias_at, depthwise_at, depthwise_bias_at, reduce_bias_at = addresses(floats)
    run('inverted_bottleneck', InvertedBottleneck(
        *sizes, native.threads(), *types, x_at, LayerNorm(*norm, inputs.eps), expand_at,
        expand_bias_at, Stencil(depthwise_at, depthwise_bias_at, inputs.skip), reduce_at, reduce_bias_at, residual_at,
        output_at))
    return output


def types_of(dtypes: Sequence[torch.dtype]) -> list[int]:
    """Returns what the library calls dtypes of maps and weights.

    Raises:
        ValueError: It has no name for one.
    """
    for dtype in dtypes:
        if dtype not in TYPES:
            raise ValueError(f'The native kernels take {", ".join(map(str, TYPES))}, not {dtype}.')
    return [TYPES[dtype] for dtype in dtypes]


def channels_last(x: Tensor | None) -> Tensor | None:
    """Returns ``x`` with its pixels one after the other, each with all its channels."""
    return None if x is None else x.contiguous(memory_format=torch.channels_last)


def dense(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.contiguous()


def dense_float32(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.float().contiguous()


def empty_map(like: Tensor, channels: int, dtype: torch.dtype | None = None) -> Tensor:
    """Returns an uninitialised map of the size of ``like``, and of its dtype if none is given, in channels_last."""
    size = (like.shape[0], channels, *like.shape[2:])
    return torch.empty(size, dtype=dtype or like.dtype, device=like.device, memory_format=torch.channels_last)


def run(name: str, problem: Structure) -> None:
    """Runs the kernel ``blocks_<name>`` with the best instruction set."""
    if getattr(native.NATIVE.library, f'blocks_{name}')(byref(problem), native.isa_index(None), native.threads()):
        raise MemoryError('The native kernel could not allocate its workspace.')
