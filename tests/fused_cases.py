"""Arguments of pointwise_conv and inverted_bottleneck with all their optional parts."""
from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from mmmamba.deploy import fused_ops
from mmmamba.ops.cpu import native
from mmmamba.ops.cpu.blocks import BottleneckInputs, PointwiseInputs

needs_library = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))


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


def cast(case: dict, dtype: torch.dtype) -> dict:
    return {name: value.to(dtype) if isinstance(value, Tensor) else value for name, value in case.items()}
