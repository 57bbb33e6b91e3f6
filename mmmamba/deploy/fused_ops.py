"""What the fused layers are made of: convolutions with the norm, gate and residual sum around them, in fewer passes.

``pointwise_conv`` and ``inverted_bottleneck`` each have a native kernel for inference on a CPU and PyTorch operations
for everything else. The choice between them is that of the scans: see :mod:`mmmamba.ops.dispatch`.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Callable, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.layers.common import layer_norm_2d, recomputed
from mmmamba.ops.checks import given_tensors, require_map
from mmmamba.ops.cpu import blocks
from mmmamba.ops.dispatch import FLOATS, WITHOUT_AUTOCAST, Backend, refusing_forward_mode, register_flops, select

ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = dict(
    zip(blocks.ACTIVATIONS, (lambda x: x, F.gelu, F.silu, F.relu)))  # older PyTorch traces no read-only mapping
_HALVES = (torch.float16, torch.bfloat16)


def pointwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    eps: float = 1e-6,
    gate: Tensor | None = None,
    gate_weight: Tensor | None = None,
    gate_norm_weight: Tensor | None = None,
    gate_norm_bias: Tensor | None = None,
    gate_eps: float = 1e-6,
    gate_activation: str | None = 'gelu',
    activation: str | None = None,
    residual: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Computes a 1x1 convolution with what comes before and after it in a block, each part if it is given::

        activation(weight ∗ (LN(x) · gate_activation(g)) + bias) + residual     g = gate, or gate_weight ∗ LN(gate)

    LN is the layer norm over the channels of a pixel. Without gradients on a CPU all of it is one pass over the maps.

    Args:
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
        backend: Name of the backend; None for the first that can run these inputs.

    Returns:
        (batch, outputs, height, width).

    Raises:
        ValueError: Shapes do not fit, or no activation or backend has this name.
        RuntimeError: The named backend cannot run these inputs.
    """
    require_map('pointwise_conv', x)
    _require_activation('pointwise_conv', activation)
    _require_activation('pointwise_conv', gate_activation)
    _require_norm('pointwise_conv', norm_weight, norm_bias)
    _require_norm('pointwise_conv', gate_norm_weight, gate_norm_bias)
    if (gate is None and gate_weight is not None) or (gate_weight is None and gate_norm_weight is not None):
        raise ValueError('pointwise_conv: gate_norm_weight needs a gate_weight, and gate_weight a gate.')
    (batch, inputs, height, width), outputs = x.shape, weight.shape[0]
    gate_inputs = inputs if gate_weight is None else gate.shape[1]
    given = given_tensors('pointwise_conv', (
        ('x', x, x.shape),
        ('weight', weight, (outputs, inputs, 1, 1)),
        ('bias', bias, (outputs, )),
        ('norm_weight', norm_weight, (inputs, )),
        ('norm_bias', norm_bias, (inputs, )),
        ('gate', gate, (batch, gate_inputs, height, width)),
        ('gate_weight', gate_weight, (inputs, gate_inputs, 1, 1)),
        ('gate_norm_weight', gate_norm_weight, (gate_inputs, )),
        ('gate_norm_bias', gate_norm_bias, (gate_inputs, )),
        ('residual', residual, (batch, outputs, height, width)),
    ))
    chosen = select('pointwise_conv', POINTWISE_CONV, given, backend)
    return chosen.run(x, weight, bias, norm_weight, norm_bias, eps, gate, gate_weight, gate_norm_weight,
                      gate_norm_bias, gate_eps, gate_activation, activation, residual)


def inverted_bottleneck(
    x: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor | None,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    *,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    eps: float = 1e-6,
    skip: bool = False,
    activation: str | None = None,
    reduce_weight: Tensor | None = None,
    reduce_bias: Tensor | None = None,
    residual: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Computes a 1x1, a depthwise 3x3 and a 1x1 convolution (MobileNetV2, arXiv 1801.04381), each if it is given::

        h, v   = split(expand_weight ∗ LN(x) + expand_bias)               no v without twice the hidden channels
        hidden = activation(depthwise_weight ∗ h + depthwise_bias + h) · v                  "+ h" with ``skip``
        output = reduce_weight ∗ hidden + reduce_bias + residual                        hidden without a reduction

    LN is the layer norm over the channels of a pixel. Without gradients on a CPU all of it is one pass over ``x``, and
    the hidden maps are never whole in memory.

    Args:
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
        backend: Name of the backend; None for the first that can run these inputs.

    Returns:
        (batch, outputs or hidden, height, width).

    Raises:
        ValueError: Shapes do not fit, or no activation or backend has this name.
        RuntimeError: The named backend cannot run these inputs.
    """
    require_map('inverted_bottleneck', x)
    _require_activation('inverted_bottleneck', activation)
    _require_norm('inverted_bottleneck', norm_weight, norm_bias)
    inputs, hidden, expanded = x.shape[1], depthwise_weight.shape[0], expand_weight.shape[0]
    if expanded not in ((hidden, ) if reduce_weight is None else (hidden, 2 * hidden)):
        raise ValueError(f'inverted_bottleneck: expand_weight must have {hidden} outputs, or twice as many with a '
                         f'reduction, not {expanded}.')
    if reduce_weight is None and (reduce_bias is not None or residual is not None):
        raise ValueError('inverted_bottleneck: reduce_bias and residual need a reduce_weight.')
    outputs = hidden if reduce_weight is None else reduce_weight.shape[0]
    given = given_tensors('inverted_bottleneck', (
        ('x', x, x.shape),
        ('expand_weight', expand_weight, (expanded, inputs, 1, 1)),
        ('expand_bias', expand_bias, (expanded, )),
        ('depthwise_weight', depthwise_weight, (hidden, 1, 3, 3)),
        ('depthwise_bias', depthwise_bias, (hidden, )),
        ('norm_weight', norm_weight, (inputs, )),
        ('norm_bias', norm_bias, (inputs, )),
        ('reduce_weight', reduce_weight, (outputs, hidden, 1, 1)),
        ('reduce_bias', reduce_bias, (outputs, )),
        ('residual', residual, (x.shape[0], outputs, *x.shape[2:])),
    ))
    chosen = select('inverted_bottleneck', INVERTED_BOTTLENECK, given, backend)
    return chosen.run(x, expand_weight, expand_bias, depthwise_weight, depthwise_bias, norm_weight, norm_bias, eps,
                      skip, activation, reduce_weight, reduce_bias, residual)


def _require_activation(op: str, name: str | None) -> None:
    if name not in ACTIVATIONS:
        raise ValueError(f'{op} has no activation named {name!r}; it has {", ".join(filter(None, ACTIVATIONS))}.')


def _require_norm(op: str, weight: Tensor | None, bias: Tensor | None) -> None:
    if (weight is None) != (bias is None):
        raise ValueError(f'{op}: norm_weight and norm_bias go together.')


def _layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Returns the layer norm over the channels of each pixel; the map as it is without one."""
    return x if weight is None or bias is None else layer_norm_2d(x, weight, bias, eps)


def _pointwise_in_torch(
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
) -> Tensor:

    def gated_conv(x: Tensor, gate: Tensor) -> Tensor:
        if gate_weight is not None:
            gate = F.conv2d(_layer_norm(gate, gate_norm_weight, gate_norm_bias, gate_eps), gate_weight)
        gated = _layer_norm(x, norm_weight, norm_bias, eps) * ACTIVATIONS[gate_activation](gate)
        return F.conv2d(gated.to(gate.dtype), weight, bias)

    if gate is None:
        x = _layer_norm(x, norm_weight, norm_bias, eps)
        # A float32 x may come before half-precision weights for the sake of its norm alone.
        y = F.conv2d(x.to(weight.dtype) if weight.dtype in _HALVES else x, weight, bias)
    else:
        y = recomputed(gated_conv, x, gate)
    y = ACTIVATIONS[activation](y)
    return y if residual is None else residual + y


def _bottleneck_in_torch(
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
) -> Tensor:
    x = _layer_norm(x, norm_weight, norm_bias, eps)
    channels = depthwise_weight.shape[0]
    # A convolution for each half: neither has to be copied out of the whole.
    weights = expand_weight.split(channels)
    biases = (None, ) * len(weights) if expand_bias is None else expand_bias.split(channels)
    expanded = [F.conv2d(x, *half) for half in zip(weights, biases)]

    def convolve_and_reduce(x: Tensor, *gate: Tensor) -> Tensor:
        y = F.conv2d(x, depthwise_weight, depthwise_bias, padding=1, groups=channels)
        y = ACTIVATIONS[activation](y + x if skip else y)
        if gate:
            y = y * gate[0]
        return y if reduce_weight is None else F.conv2d(y, reduce_weight, reduce_bias)

    y = recomputed(convolve_and_reduce, *expanded)
    return y if residual is None else residual + y


def _register(
    name: str,
    schema: str,
    kernel: Callable[..., Tensor],
    outputs: Callable[..., int],
    weights: Sequence[int],
) -> Callable[..., Tensor]:
    """Registers the native ``mmmamba::<name>`` and returns it.

    Args:
        name: Of the operator.
        schema: Its arguments; the first is the map.
        kernel: Runs it on float32 tensors of a CPU.
        outputs: Returns the channels of the result, from all arguments after the map.
        weights: Where among these are the weights of the convolutions.
    """
    qualified = f'mmmamba::{name}'
    # Not torch.library.custom_op: its wrapper takes longer than the kernel does on a small map.
    torch.library.define(qualified, f'({schema}, str? isa=None) -> Tensor')
    torch.library.impl(qualified, 'cpu', refusing_forward_mode(kernel))
    torch.library.register_autograd(qualified, _refuse_gradient)

    @torch.library.register_fake(qualified)
    def _(x: Tensor, *others: Any) -> Tensor:
        size = (x.shape[0], outputs(*others), *x.shape[2:])
        return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)

    def flops(x: torch.Size, *others: Any, **_: Any) -> int:
        return 2 * x[0] * x[2] * x[3] * sum(others[i].numel() for i in weights if others[i] is not None)

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
    """A :class:`Backend` that runs only if no gradient is asked for, and if autocast would change nothing."""

    def unsupported_reasons(self, inputs: Iterable[Tensor]) -> list[str]:
        inputs = list(inputs)
        reasons = super().unsupported_reasons(inputs)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
            reasons.append('It has no gradient, and an input needs one.')
        devices = {tensor.device.type for tensor in inputs}
        if any(device not in WITHOUT_AUTOCAST and torch.is_autocast_enabled(device) for device in devices):
            reasons.append('It does not follow autocast.')
        return reasons


_native_pointwise = _register(
    'pointwise_conv',
    'Tensor x, Tensor weight, Tensor? bias, Tensor? norm_weight, Tensor? norm_bias, float eps, Tensor? gate, '
    'Tensor? gate_weight, Tensor? gate_norm_weight, Tensor? gate_norm_bias, float gate_eps, str? gate_activation, '
    'str? activation, Tensor? residual',
    blocks.pointwise,
    outputs=lambda weight, *_: weight.shape[0],
    weights=(0, 6),  # and that of the gate
)
_native_bottleneck = _register(
    'inverted_bottleneck',
    'Tensor x, Tensor expand_weight, Tensor? expand_bias, Tensor depthwise_weight, Tensor? depthwise_bias, '
    'Tensor? norm_weight, Tensor? norm_bias, float eps, bool skip, str? activation, Tensor? reduce_weight, '
    'Tensor? reduce_bias, Tensor? residual',
    blocks.inverted_bottleneck,
    outputs=lambda *others: (others[2] if others[9] is None else others[9]).shape[0],
    weights=(0, 2, 9),  # expanding, depthwise, reducing
)

POINTWISE_CONV = (
    InferenceBackend('cpu', _native_pointwise, (torch.float32,), ('cpu',), blocks.unavailable),
    Backend('torch', _pointwise_in_torch, FLOATS, transformable=True),
)
INVERTED_BOTTLENECK = (
    InferenceBackend('cpu', _native_bottleneck, (torch.float32,), ('cpu',), blocks.unavailable),
    Backend('torch', _bottleneck_in_torch, FLOATS, transformable=True),
)
