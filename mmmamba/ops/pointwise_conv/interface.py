from __future__ import annotations

from torch import Tensor

from mmmamba.ops.checks import given_tensors, require_activation, require_map, require_norm
from mmmamba.ops.dispatch import select
from mmmamba.ops.pointwise_conv.backends import BACKENDS


def pointwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    eps: float = 1e-6,
    gate: Tensor | None = None,
    activation: str | None = None,
    residual: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """A 1x1 convolution with what stands before and behind it in a block, each part where it is given::

        activation(weight ∗ (LN(x) · gelu(gate)) + bias) + residual

    LN is the layer norm over the channels of a pixel. Without gradients on a CPU all of it is one pass over the maps.

    Args:
        x: Map (batch, inputs, height, width). Memory in channels_last spares a copy, in all maps.
        weight: (outputs, inputs, 1, 1).
        bias: (outputs,).
        norm_weight: γ of the layer norm (inputs,); None for no norm.
        norm_bias: β of the layer norm (inputs,), with ``norm_weight``.
        eps: ε of the layer norm.
        gate: Shaped as ``x``.
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
    require_activation('pointwise_conv', activation)
    require_norm('pointwise_conv', norm_weight, norm_bias)
    (batch, inputs, height, width), outputs = x.shape, weight.shape[0]
    given = given_tensors('pointwise_conv', (
        ('x', x, x.shape),
        ('weight', weight, (outputs, inputs, 1, 1)),
        ('bias', bias, (outputs, )),
        ('norm_weight', norm_weight, (inputs, )),
        ('norm_bias', norm_bias, (inputs, )),
        ('gate', gate, x.shape),
        ('residual', residual, (batch, outputs, height, width)),
    ))
    chosen = select('pointwise_conv', BACKENDS, given, backend)
    return chosen.run(x, weight, bias, norm_weight, norm_bias, eps, gate, activation, residual)
