"""The depthwise convolution in PyTorch operations: runs on any device and carries gradients."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmmamba.ops.activation import ACTIVATIONS
from mmmamba.ops.dispatch import Backend
from mmmamba.ops.pointwise_conv import torch_backend


def run(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    skip: bool,
    activation: str | None,
    gate: Tensor | None,
) -> Tensor:
    """Takes and returns what :func:`depthwise_conv` does."""
    y = F.conv2d(x, weight, bias, padding=1, groups=x.shape[1])
    y = ACTIVATIONS[activation](y + x if skip else y)
    return y if gate is None else y * gate


BACKEND = Backend(name='torch', run=run, tolerances=torch_backend.BACKEND.tolerances)
