from __future__ import annotations

from torch import Tensor

from mmmamba.ops.checks import given_tensors, require_activation, require_map, require_norm
from mmmamba.ops.dispatch import select
from mmmamba.ops.inverted_bottleneck.backends import BACKENDS


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
    """1x1, depthwise 3x3 and 1x1 convolution (MobileNetV2, arXiv 1801.04381), each part where it is given::

        h, v   = split(expand_weight ∗ LN(x) + expand_bias)               no v without twice the hidden channels
        hidden = activation(depthwise_weight ∗ h + depthwise_bias + h) · v                  "+ h" where ``skip``
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
    require_activation('inverted_bottleneck', activation)
    require_norm('inverted_bottleneck', norm_weight, norm_bias)
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
    chosen = select('inverted_bottleneck', BACKENDS, given, backend)
    return chosen.run(x, expand_weight, expand_bias, depthwise_weight, depthwise_bias, norm_weight, norm_bias, eps,
                      skip, activation, reduce_weight, reduce_bias, residual)
