"""Calls the native kernels of the blocks around the scan with channels-last maps. The structures mirror blocks.h."""
from __future__ import annotations

from ctypes import Structure, byref, c_double, c_int64, c_void_p

import torch
from torch import Tensor

from mmmamba.ops.cpu import native
from mmmamba.ops.cpu.native import addresses

ABI = 2
ACTIVATIONS = (None, 'gelu', 'silu', 'relu')  # in the order of blocks.h; GELU is the exact one


class LayerNorm(Structure):
    """LayerNorm of blocks.h."""

    _fields_ = [('weight', c_void_p), ('bias', c_void_p), ('epsilon', c_double)]


class Pointwise(Structure):
    """Pointwise of blocks.h."""

    _fields_ = [
        *((name, c_int64) for name in ('pixels', 'inputs', 'outputs', 'gate_inputs', 'activation', 'gate_activation')),
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
        *((name, c_int64) for name in ('activation', 'gated', 'threads')),
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
    for name in ('blocks_pointwise', 'blocks_inverted_bottleneck'):
        function = getattr(loaded.library, name)
        function.restype, function.argtypes = c_int64, [c_void_p, c_int64, c_int64]
    return None


REASON = _reason(native.NATIVE)


def unavailable() -> str | None:
    """Returns why the native kernels cannot run here, or None if they can."""
    return REASON


def pointwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    gate: Tensor | None,
    gate_weight: Tensor | None,
    gate_norm_weight: Tensor | None,
    gate_norm_bias: Tensor | None,
    gate_eps: float,
    gate_activation: str | None,
    activation: str | None,
    residual: Tensor | None,
    isa: str | None = None,
) -> Tensor:
    """Runs ``pointwise_conv`` of mmmamba.deploy on float32 tensors, with the instruction set ``isa`` or the best."""
    x, gate, residual = map(_channels_last, (x, gate, residual))
    weight, bias, gate_weight = map(_dense, (weight, bias, gate_weight))
    norm_weight, norm_bias = map(_dense, (norm_weight, norm_bias))
    gate_norm_weight, gate_norm_bias = map(_dense, (gate_norm_weight, gate_norm_bias))
    batch, inputs, height, width = x.shape
    outputs = weight.shape[0]
    output = _empty_map(x, outputs)
    if not output.numel():
        return output
    gate_inputs = 0 if gate_weight is None else gate_weight.shape[1]
    sizes = (batch * height * width, inputs, outputs, gate_inputs, ACTIVATIONS.index(activation),
             ACTIVATIONS.index(gate_activation))
    x_at, gate_at, residual_at, output_at = addresses(
        (x, gate, residual, output), memory_format=torch.channels_last)
    weight_at, bias_at, gate_weight_at = addresses((weight, bias, gate_weight))
    norm = LayerNorm(*addresses((norm_weight, norm_bias)), eps)
    gate_norm = LayerNorm(*addresses((gate_norm_weight, gate_norm_bias)), gate_eps)
    _run('blocks_pointwise',
         Pointwise(*sizes, x_at, weight_at, bias_at, norm, gate_at, gate_weight_at, gate_norm, residual_at, output_at),
         isa)
    return output


def inverted_bottleneck(
    x: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    skip: bool,
    activation: str | None,
    reduce_weight: Tensor | None,
    reduce_bias: Tensor | None,
    residual: Tensor | None,
    isa: str | None = None,
) -> Tensor:
    """Runs ``inverted_bottleneck`` of mmmamba.deploy likewise."""
    x, residual = map(_channels_last, (x, residual))
    norm_weight, norm_bias = map(_dense, (norm_weight, norm_bias))
    expand_weight, expand_bias = map(_dense, (expand_weight, expand_bias))
    depthwise_weight, depthwise_bias = map(_dense, (depthwise_weight, depthwise_bias))
    reduce_weight, reduce_bias = map(_dense, (reduce_weight, reduce_bias))
    batch, inputs, height, width = x.shape
    hidden = depthwise_weight.shape[0]
    outputs = hidden if reduce_weight is None else reduce_weight.shape[0]
    output = _empty_map(x, outputs)
    if not output.numel():
        return output
    if not hidden:
        raise ValueError('inverted_bottleneck: nothing to reduce, there are no hidden channels.')
    gated = expand_weight.shape[0] > hidden
    sizes = (batch, height, width, inputs, hidden, outputs, ACTIVATIONS.index(activation), gated)
    x_at, residual_at, output_at = addresses((x, residual, output), memory_format=torch.channels_last)
    stencil = Stencil(*addresses((depthwise_weight, depthwise_bias)), skip)
    _run('blocks_inverted_bottleneck',
         InvertedBottleneck(*sizes, native.threads(), x_at, LayerNorm(*addresses((norm_weight, norm_bias)), eps),
                            *addresses((expand_weight, expand_bias)), stencil,
                            *addresses((reduce_weight, reduce_bias)), residual_at, output_at), isa)
    return output


def _channels_last(x: Tensor | None) -> Tensor | None:
    """Returns ``x`` with its pixels one after the other, each with all its channels."""
    return None if x is None else x.contiguous(memory_format=torch.channels_last)


def _dense(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.contiguous()


def _empty_map(like: Tensor, channels: int) -> Tensor:
    size = (like.shape[0], channels, *like.shape[2:])
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _run(function: str, problem: Structure, isa: str | None) -> None:
    index = native.isa_index(isa)
    if getattr(native.NATIVE.library, function)(byref(problem), index, native.threads()):
        raise MemoryError('The native kernel could not allocate its workspace.')
