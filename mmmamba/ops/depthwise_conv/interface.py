from __future__ import annotations

from torch import Tensor

from mmmamba.ops.checks import given_tensors, require_activation, require_map
from mmmamba.ops.depthwise_conv.backends import BACKENDS
from mmmamba.ops.dispatch import select


def depthwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    skip: bool = False,
    activation: str | None = None,
    gate: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """A depthwise 3x3 convolution with 'same' padding, and what stands behind it in a block, where it is given::

        activation(weight ∗ x + bias + x) · gate                 with "+ x" where ``skip``

    Without gradients on a CPU all of it is one pass over the maps.

    Args:
        x: Map (batch, channels, height, width). Memory in channels_last spares a copy, in all maps.
        weight: (channels, 1, 3, 3).
        bias: (channels,).
        skip: Whether the input is added to what the convolution makes of it.
        activation: 'gelu' (the exact one), 'silu', 'relu', or None.
        gate: Shaped as ``x``.
        backend: Name of the backend; None for the first that can run these inputs.

    Returns:
        Shaped as ``x``.

    Raises:
        ValueError: Shapes do not fit, or no activation or backend has this name.
        RuntimeError: The named backend cannot run these inputs.
    """
    require_map('depthwise_conv', x)
    require_activation('depthwise_conv', activation)
    channels = x.shape[1]
    given = given_tensors('depthwise_conv', (
        ('x', x, x.shape),
        ('weight', weight, (channels, 1, 3, 3)),
        ('bias', bias, (channels, )),
        ('gate', gate, x.shape),
    ))
    chosen = select('depthwise_conv', BACKENDS, given, backend)
    return chosen.run(x, weight, bias, skip, activation, gate)
