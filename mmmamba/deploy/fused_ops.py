"""What the fused layers are made of: convolutions with the norm, gate and residual sum around them, in fewer passes.

``pointwise_conv`` and ``inverted_bottleneck`` each have a native kernel for inference on a CPU. In training, a CPU
runs PyTorch's convolutions with native passes between them. Everything else runs PyTorch's operations. The choice is
that of the scans: see :mod:`mmmamba.ops.dispatch`.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Callable, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.deploy.fused_passes import ACTIVATIONS, convolved_pass, fused_pass
from mmmamba.layers.common import layer_norm_2d, recomputed
from mmmamba.ops.checks import given_tensors, require_map
from mmmamba.ops.cpu import blocks
from mmmamba.ops.cpu.blocks import BottleneckInputs, PointwiseInputs
from mmmamba.ops.cpu.passes import GatedDepthwiseInputs, NormGateInputs
from mmmamba.ops.dispatch import (
    FLOAT32_AND_HALVES,
    FLOATS,
    WITHOUT_AUTOCAST,
    Backend,
    refusing_forward_mode,
    register_flops,
    select,
)

_HALVES = (torch.float16, torch.bfloat16)


def pointwise_conv(inputs: PointwiseInputs, *, backend: str | None = None) -> Tensor:
    """Computes a 1x1 convolution with what comes before and after it, as :class:`PointwiseInputs` has it.

    Without gradients on a CPU all of it is one pass over the maps.

    Args:
        inputs: Maps, weights and what is to be done with them.
        backend: Name of the backend; None for the first that can run these inputs.

    Returns:
        (batch, outputs, height, width).

    Raises:
        ValueError: Shapes do not fit, or no activation or backend has this name.
        RuntimeError: The named backend cannot run these inputs.
    """
    x, weight, gate, gate_weight = inputs.x, inputs.weight, inputs.gate, inputs.gate_weight
    require_map('pointwise_conv', x)
    _require_activation('pointwise_conv', inputs.activation)
    _require_activation('pointwise_conv', inputs.gate_activation)
    _require_norm('pointwise_conv', inputs.norm_weight, inputs.norm_bias)
    _require_norm('pointwise_conv', inputs.gate_norm_weight, inputs.gate_norm_bias)
    if (gate is None and gate_weight is not None) or (gate_weight is None and inputs.gate_norm_weight is not None):
        raise ValueError('pointwise_conv: gate_norm_weight needs a gate_weight, and gate_weight a gate.')
    (batch, channels, height, width), outputs = x.shape, weight.shape[0]
    gate_channels = channels if gate_weight is None else gate.shape[1]
    given = given_tensors('pointwise_conv', (
        ('x', x, x.shape),
        ('weight', weight, (outputs, channels, 1, 1)),
        ('bias', inputs.bias, (outputs, )),
        ('norm_weight', inputs.norm_weight, (channels, )),
        ('norm_bias', inputs.norm_bias, (channels, )),
        ('gate', gate, (batch, gate_channels, height, width)),
        ('gate_weight', gate_weight, (channels, gate_channels, 1, 1)),
        ('gate_norm_weight', inputs.gate_norm_weight, (gate_channels, )),
        ('gate_norm_bias', inputs.gate_norm_bias, (gate_channels, )),
        ('residual', inputs.residual, (batch, outputs, height, width)),
    ))
    return select('pointwise_conv', POINTWISE_CONV, given, backend).run(*inputs)


def inverted_bottleneck(inputs: BottleneckInputs, *, backend: str | None = None) -> Tensor:
    """Computes a 1x1, a depthwise 3x3 and a 1x1 convolution, as :class:`BottleneckInputs` has it.

    Without gradients on a CPU all of it is one pass over ``x``, and the hidden maps are never whole in memory.

    Args:
        inputs: Maps, weights and what is to be done with them.
        backend: Name of the backend; None for the first that can run these inputs.

    Returns:
        (batch, outputs or hidden, height, width).

    Raises:
        ValueError: Shapes do not fit, or no activation or backend has this name.
        RuntimeError: The named backend cannot run these inputs.
    """
    x, reduce_weight = inputs.x, inputs.reduce_weight
    require_map('inverted_bottleneck', x)
    _require_activation('inverted_bottleneck', inputs.activation)
    _require_norm('inverted_bottleneck', inputs.norm_weight, inputs.norm_bias)
    channels, hidden, expanded = x.shape[1], inputs.depthwise_weight.shape[0], inputs.expand_weight.shape[0]
    if expanded not in ((hidden, ) if reduce_weight is None else (hidden, 2 * hidden)):
        raise ValueError(f'inverted_bottleneck: expand_weight must have {hidden} outputs, or twice as many with a '
                         f'reduction, not {expanded}.')
    if reduce_weight is None and (inputs.reduce_bias is not None or inputs.residual is not None):
        raise ValueError('inverted_bottleneck: reduce_bias and residual need a reduce_weight.')
    outputs = hidden if reduce_weight is None else reduce_weight.shape[0]
    given = given_tensors('inverted_bottleneck', (
        ('x', x, x.shape),
        ('expand_weight', inputs.expand_weight, (expanded, channels, 1, 1)),
        ('expand_bias', inputs.expand_bias, (expanded, )),
        ('depthwise_weight', inputs.depthwise_weight, (hidden, 1, 3, 3)),
        ('depthwise_bias', inputs.depthwise_bias, (hidden, )),
        ('norm_weight', inputs.norm_weight, (channels, )),
        ('norm_bias', inputs.norm_bias, (channels, )),
        ('reduce_weight', reduce_weight, (outputs, hidden, 1, 1)),
        ('reduce_bias', inputs.reduce_bias, (outputs, )),
        ('residual', inputs.residual, (x.shape[0], outputs, *x.shape[2:])),
    ))
    return select('inverted_bottleneck', INVERTED_BOTTLENECK, given, backend).run(*inputs)


def _require_activation(op: str, name: str | None) -> None:
    if name not in ACTIVATIONS:
        raise ValueError(f'{op} has no activation named {name!r}; it has {", ".join(filter(None, ACTIVATIONS))}.')


def _require_norm(op: str, weight: Tensor | None, bias: Tensor | None) -> None:
    if (weight is None) != (bias is None):
        raise ValueError(f'{op}: norm_weight and norm_bias go together.')


def _layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Returns the layer norm over the channels of each pixel; the map as it is without one."""
    return x if weight is None or bias is None else layer_norm_2d(x, weight, bias, eps)


def _pointwise_in_torch(*arguments: Any) -> Tensor:
    inputs = PointwiseInputs(*arguments)
    weight, bias = inputs.weight, inputs.bias

    def normed(x: Tensor) -> Tensor:
        return _layer_norm(x, inputs.norm_weight, inputs.norm_bias, inputs.eps)

    def gated_conv(x: Tensor, gate: Tensor) -> Tensor:
        if inputs.gate_weight is not None:
            gate = _layer_norm(gate, inputs.gate_norm_weight, inputs.gate_norm_bias, inputs.gate_eps)
            gate = F.conv2d(gate, inputs.gate_weight)
        gated = normed(x) * ACTIVATIONS[inputs.gate_activation](gate)
        return F.conv2d(gated.to(gate.dtype), weight, bias)

    if inputs.gate is None:
        x = normed(inputs.x)
        # A float32 x may come before half-precision weights for the sake of its norm alone.
        y = F.conv2d(x.to(weight.dtype) if weight.dtype in _HALVES else x, weight, bias)
    else:
        y = recomputed(gated_conv, inputs.x, inputs.gate)
    y = ACTIVATIONS[inputs.activation](y)
    return y if inputs.residual is None else inputs.residual + y


def _bottleneck_in_torch(*arguments: Any) -> Tensor:
    inputs = BottleneckInputs(*arguments)
    x = _layer_norm(inputs.x, inputs.norm_weight, inputs.norm_bias, inputs.eps)
    channels = inputs.depthwise_weight.shape[0]
    # A convolution for each half: neither has to be copied out of the whole.
    weights = inputs.expand_weight.split(channels)
    biases = (None, ) * len(weights) if inputs.expand_bias is None else inputs.expand_bias.split(channels)
    expanded = [F.conv2d(x, *half) for half in zip(weights, biases)]

    def convolve_and_reduce(x: Tensor, *gate: Tensor) -> Tensor:
        y = F.conv2d(x, inputs.depthwise_weight, inputs.depthwise_bias, padding=1, groups=channels)
        y = ACTIVATIONS[inputs.activation](y + x if inputs.skip else y)
        if gate:
            y = y * gate[0]
        return y if inputs.reduce_weight is None else F.conv2d(y, inputs.reduce_weight, inputs.reduce_bias)

    y = recomputed(convolve_and_reduce, *expanded)
    return y if inputs.residual is None else inputs.residual + y


def _dtype_of_convolutions(weight: Tensor) -> torch.dtype:
    """Returns the dtype in which convolutions with ``weight`` compute, which autocast may shorten."""
    device = weight.device.type
    if device in WITHOUT_AUTOCAST or not torch.is_autocast_enabled(device) or weight.dtype == torch.float64:
        return weight.dtype
    return torch.get_autocast_dtype(device)


def _normed_conv(x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, eps: float, weight: Tensor,
                 bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Returns the 1x1 convolution of a map's layer norm, or of the map without one."""
    if norm_weight is None:
        return F.conv2d(x.to(dtype), weight, bias)
    return convolved_pass(NormGateInputs(x, norm_weight, norm_bias, None, eps, None, dtype), weight, bias)


def _pointwise_in_passes(*arguments: Any) -> Tensor:
    inputs = PointwiseInputs(*arguments)
    weight, bias, gate = inputs.weight, inputs.bias, inputs.gate
    dtype = _dtype_of_convolutions(weight)

    if gate is not None and inputs.gate_weight is not None:
        gate = _normed_conv(gate, inputs.gate_norm_weight, inputs.gate_norm_bias, inputs.gate_eps, inputs.gate_weight,
                            None, dtype)
    if gate is None:
        y = _normed_conv(inputs.x, inputs.norm_weight, inputs.norm_bias, inputs.eps, weight, bias, dtype)
    else:
        y = convolved_pass(NormGateInputs(inputs.x, inputs.norm_weight, inputs.norm_bias, gate.to(dtype), inputs.eps,
                                          inputs.gate_activation, dtype), weight, bias)
    y = ACTIVATIONS[inputs.activation](y)
    return y if inputs.residual is None else inputs.residual + y


def _bottleneck_in_passes(*arguments: Any) -> Tensor:
    inputs = BottleneckInputs(*arguments)
    dtype = _dtype_of_convolutions(inputs.expand_weight)

    expanded = _normed_conv(inputs.x, inputs.norm_weight, inputs.norm_bias, inputs.eps, inputs.expand_weight,
                            inputs.expand_bias, dtype)
    depthwise = GatedDepthwiseInputs(
        expanded, inputs.depthwise_weight, inputs.depthwise_bias, inputs.skip, inputs.activation)
    if inputs.reduce_weight is None:
        return fused_pass(depthwise)
    y = convolved_pass(depthwise, inputs.reduce_weight, inputs.reduce_bias)
    return y if inputs.residual is None else inputs.residual + y


def _pointwise_natively(*arguments: Any) -> Tensor:
    inputs = PointwiseInputs(*arguments)
    dtype = _dtype_of_convolutions(inputs.weight)
    weight, gate_weight = _cast(inputs.weight, dtype), _cast(inputs.gate_weight, dtype)
    return _with_residual(_native_pointwise, inputs._replace(weight=weight, gate_weight=gate_weight), dtype)


def _bottleneck_natively(*arguments: Any) -> Tensor:
    inputs = BottleneckInputs(*arguments)
    dtype = _dtype_of_convolutions(inputs.expand_weight)
    expand, reduce = _cast(inputs.expand_weight, dtype), _cast(inputs.reduce_weight, dtype)
    return _with_residual(_native_bottleneck, inputs._replace(expand_weight=expand, reduce_weight=reduce), dtype)


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _with_residual(native: Callable[..., Tensor], inputs: PointwiseInputs | BottleneckInputs,
                   dtype: torch.dtype) -> Tensor:
    """Runs a native operator that adds residuals of its result's ``dtype``; another one is added to the result."""
    if inputs.residual is None or inputs.residual.dtype == dtype:
        return native(*inputs)
    return inputs.residual + native(*inputs._replace(residual=None))


def _register(
    name: str,
    inputs_type: type[PointwiseInputs] | type[BottleneckInputs],
    kernel: Callable[[Any], Tensor],
    weights: Callable[[Any], Sequence[Any]],
    last_weight: Callable[[Any], Tensor],
) -> Callable[..., Tensor]:
    """Registers the native ``mmmamba::<name>`` and returns it.

    Args:
        name: Of the operator.
        inputs_type: What its arguments are.
        kernel: Runs it on a CPU's tensors.
        weights: Returns the weights of the convolutions, or None for one that is not there. The first one has the
            dtype of the result.
        last_weight: Returns the weight that makes the channels of the result.
    """
    qualified = f'mmmamba::{name}'
    schema = ', '.join(f'{kind.__forward_arg__.replace(" | None", "?")} {field}'
                       for field, kind in inputs_type.__annotations__.items())
    # Not torch.library.custom_op: its wrapper takes longer than the kernel does on a small map.
    torch.library.define(qualified, f'({schema}) -> Tensor')
    torch.library.impl(qualified, 'cpu', refusing_forward_mode(lambda *arguments: kernel(inputs_type(*arguments))))
    torch.library.register_autograd(qualified, _refuse_gradient)

    @torch.library.register_fake(qualified)
    def _(*arguments: Any) -> Tensor:
        inputs = inputs_type(*arguments)
        return blocks.empty_map(inputs.x, last_weight(inputs).shape[0], weights(inputs)[0].dtype)

    def flops(*shapes: Any, **_: Any) -> int:
        inputs = inputs_type(*shapes)
        batch, _, height, width = inputs.x
        return 2 * batch * height * width * sum(weight.numel() for weight in weights(inputs) if weight is not None)

    operator = getattr(torch.ops.mmmamba, name)
    register_flops(operator, flops)
    return operator


def _refuse_gradient(ctx: Any, grad: Tensor) -> NoReturn:
    raise RuntimeError(
        'This native operator is for inference only: export or trace the model with gradients enabled, '
        "or use backend='torch'."
    )


@dataclass(frozen=True)
class InferenceBackend(Backend):
    """A :class:`Backend` that runs only if no gradient is asked for."""

    def unsupported_reasons(self, inputs: Iterable[Tensor]) -> list[str]:
        inputs = list(inputs)
        reasons = super().unsupported_reasons(inputs)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
            reasons.append('It has no gradient, and an input needs one.')
        return reasons


_native_pointwise = _register(
    'pointwise_conv',
    PointwiseInputs,
    blocks.pointwise,
    weights=lambda inputs: (inputs.weight, inputs.gate_weight),
    last_weight=lambda inputs: inputs.weight,
)
_native_bottleneck = _register(
    'inverted_bottleneck',
    BottleneckInputs,
    blocks.inverted_bottleneck,
    weights=lambda inputs: (inputs.expand_weight, inputs.depthwise_weight, inputs.reduce_weight),
    last_weight=lambda inputs: inputs.depthwise_weight if inputs.reduce_weight is None else inputs.reduce_weight,
)

POINTWISE_CONV = (
    InferenceBackend('cpu', _pointwise_natively, FLOAT32_AND_HALVES, ('cpu',), blocks.unavailable),
    Backend('passes', _pointwise_in_passes, FLOAT32_AND_HALVES, ('cpu',), blocks.unavailable),
    Backend('torch', _pointwise_in_torch, FLOATS, transformable=True),
)
INVERTED_BOTTLENECK = (
    InferenceBackend('cpu', _bottleneck_natively, FLOAT32_AND_HALVES, ('cpu',), blocks.unavailable),
    Backend('passes', _bottleneck_in_passes, FLOAT32_AND_HALVES, ('cpu',), blocks.unavailable),
    Backend('torch', _bottleneck_in_torch, FLOATS, transformable=True),
)
