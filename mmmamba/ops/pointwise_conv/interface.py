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
    gate_weight: Tensor | None = None,
    gate_norm_weight: Tensor | None = None,
    gate_norm_bias: Tensor | None = None,
    gate_eps: float = 1e-6,
    gate_activation: str | None = 'gelu',
    activation: str | None = None,
    residual: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """A 1x1 convolution with what comes before and after it in a block, each part where it is given::

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
    require_activation('pointwise_conv', activation)
    require_activation('pointwise_conv', gate_activation)
    require_norm('pointwise_conv', norm_weight, norm_bias)
    require_norm('pointwise_conv', gate_norm_weight, gate_norm_bias)
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
    chosen = select('pointwise_conv', BACKENDS, given, backend)
    return chosen.run(x, weight, bias, norm_weight, norm_bias, eps, gate, gate_weight, gate_norm_weight,
                      gate_norm_bias, gate_eps, gate_activation, activation, residual)
