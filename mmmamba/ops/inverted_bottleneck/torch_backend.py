"""The inverted bottleneck in PyTorch operations: runs on any device and carries gradients."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmmamba.ops.activation import ACTIVATIONS
from mmmamba.ops.dispatch import Backend
from mmmamba.ops.pointwise_conv.torch_backend import BACKEND as POINTWISE
from mmmamba.ops.pointwise_conv.torch_backend import layer_norm
from mmmamba.ops.recomputation import recomputed


def run(
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
    """Takes and returns what :func:`inverted_bottleneck` does."""
    x = layer_norm(x, norm_weight, norm_bias, eps)
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


BACKEND = Backend(name='torch', run=run, tolerances=POINTWISE.tolerances, transformable=True)
