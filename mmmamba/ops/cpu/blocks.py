"""Calls the native kernels of the blocks around the scan with channels-last maps. The structures mirror blocks.h."""
from __future__ import annotations

import ctypes
from ctypes import Structure, byref, c_float, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor

from mmmamba.ops.activation import ACTIVATIONS
from mmmamba.ops.cpu import native

ABI = 1
_ACTIVATION_INDEX = {name: index for index, name in enumerate(ACTIVATIONS)}


class Pointwise(Structure):
    """Pointwise of blocks.h."""

    _fields_ = [
        *((name, c_int64) for name in ('pixels', 'inputs', 'parts', 'outputs', 'activation')),
        *((name, c_void_p) for name in ('input', 'weight', 'bias', 'norm_weight', 'norm_bias', 'gate', 'residual')),
        ('output', c_void_p),
        ('epsilon', c_float),
    ]


class Depthwise(Structure):
    """Depthwise of blocks.h."""

    _fields_ = [
        *((name, c_int64) for name in ('batch', 'height', 'width', 'channels', 'skip', 'activation')),
        *((name, c_void_p) for name in ('input', 'weight', 'bias', 'gate', 'output')),
    ]


def unavailable() -> str | None:
    """Returns why the native kernels cannot run here, or None if they can."""
    loaded = native.load()
    return loaded.reason if loaded.library is None else _unusable(loaded.library)


@cache
def _unusable(library: ctypes.CDLL) -> str | None:
    """Declares the functions of ``library``, or returns why it cannot be used."""
    if not hasattr(library, 'blocks_abi') or library.blocks_abi() != ABI:
        return 'The native library belongs to another version of mmmamba; install again to rebuild it.'
    for name in ('blocks_pointwise', 'blocks_depthwise'):
        function = getattr(library, name)
        function.restype, function.argtypes = c_int64, [c_void_p, c_int64, c_int64]
    return None


def pointwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    gate: Tensor | None,
    activation: str | None,
    residual: Tensor | None,
    parts: int,
    isa: str | None = None,
) -> Tensor:
    """:func:`mmmamba.ops.split_pointwise_conv` of float32 tensors, its maps one after the other in the batch.

    ``isa`` names an instruction set, None takes the best.
    """
    x, gate, residual = map(_channels_last, (x, gate, residual))
    batch, inputs, height, width = x.shape
    outputs = weight.shape[0] // parts
    output = _empty_map(x, parts * batch, outputs)
    parameters = [_dense(tensor) for tensor in (weight, bias, norm_weight, norm_bias)]
    addresses = map(_address, (x, *parameters, gate, residual, output))
    sizes = (batch * height * width, inputs, parts, outputs)
    problem = Pointwise(*sizes, _ACTIVATION_INDEX[activation], *addresses, eps)
    _run('blocks_pointwise', problem, isa)
    return output


def depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    skip: bool,
    activation: str | None,
    gate: Tensor | None,
    isa: str | None = None,
) -> Tensor:
    """:func:`mmmamba.ops.depthwise_conv` of float32 tensors; ``isa`` names an instruction set, None takes the best."""
    x, gate = map(_channels_last, (x, gate))
    output = _empty_map(x, *x.shape[:2])
    batch, channels, height, width = x.shape
    addresses = map(_address, (x, _dense(weight), _dense(bias), gate, output))
    problem = Depthwise(batch, height, width, channels, skip, _ACTIVATION_INDEX[activation], *addresses)
    _run('blocks_depthwise', problem, isa)
    return output


def _channels_last(x: Tensor | None) -> Tensor | None:
    """``x`` with its pixels one after the other, each with all its channels."""
    return None if x is None else x.contiguous(memory_format=torch.channels_last)


def _dense(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.contiguous()


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _empty_map(like: Tensor, batch: int, channels: int) -> Tensor:
    return torch.empty((batch, channels, *like.shape[2:]), dtype=like.dtype, memory_format=torch.channels_last)


def _run(function: str, problem: Structure, isa: str | None) -> None:
    index = native._isa_index(isa)
    if getattr(native.load().library, function)(byref(problem), index, torch.get_num_threads()):
        raise MemoryError('The native kernel could not allocate its workspace.')
