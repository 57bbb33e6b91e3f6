"""The 1x1 convolution in PyTorch operations: runs on any device and carries gradients."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.ops.activation import ACTIVATIONS
from mmmamba.ops.dispatch import Backend, Tolerance
from mmmamba.ops.recomputation import recomputed

_HALVES = (torch.float16, torch.bfloat16)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """The layer norm over the channels of each pixel; the map as it is where ``weight`` is None."""
    if weight is None:
        return x
    # A float32 x before float16 parameters stays float32; parameters are never rounded.
    weight, bias = (p.to(torch.promote_types(x.dtype, p.dtype)) for p in (weight, bias))
    return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, eps).permute(0, 3, 1, 2)


def run(
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
    """Takes and returns what :func:`pointwise_conv` does."""

    def gated_conv(x: Tensor, gate: Tensor) -> Tensor:
        if gate_weight is not None:
            gate = F.conv2d(layer_norm(gate, gate_norm_weight, gate_norm_bias, gate_eps), gate_weight)
        gated = layer_norm(x, norm_weight, norm_bias, eps) * ACTIVATIONS[gate_activation](gate)
        return F.conv2d(gated.to(gate.dtype), weight, bias)

    if gate is None:
        x = layer_norm(x, norm_weight, norm_bias, eps)
        # A float32 x may stand before half-precision weights for the sake of its norm alone.
        y = F.conv2d(x.to(weight.dtype) if weight.dtype in _HALVES else x, weight, bias)
    else:
        y = recomputed(gated_conv, x, gate)
    y = ACTIVATIONS[activation](y)
    return y if residual is None else residual + y


BACKEND = Backend(
    name='torch',
    run=run,
    tolerances={
        torch.float64: Tolerance(forward=1e-12, gradient=1e-11),
        torch.float32: Tolerance(forward=2e-6, gradient=2e-5),
        torch.float16: Tolerance(forward=2e-3, gradient=2e-3),
        torch.bfloat16: Tolerance(forward=2e-2, gradient=2e-2),
    },
    transformable=True,
)
