"""The 1x1 convolution in PyTorch operations: runs on any device and carries gradients."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.ops.activation import ACTIVATIONS
from mmmamba.ops.dispatch import Backend, Tolerance


def run(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    eps: float,
    gate: Tensor | None,
    activation: str | None,
    residual: Tensor | None,
    parts: int,
) -> tuple[Tensor, ...]:
    """Takes and returns what :func:`split_pointwise_conv` does."""
    if norm_weight is not None:
        x = F.layer_norm(x.permute(0, 2, 3, 1), norm_weight.shape, norm_weight, norm_bias, eps).permute(0, 3, 1, 2)
    if gate is not None:
        x = (x * F.gelu(gate)).to(gate.dtype)
    # A convolution for each part: none has to be copied out of the whole.
    weights = weight.chunk(parts)
    biases = (None, ) * parts if bias is None else bias.chunk(parts)
    maps = (ACTIVATIONS[activation](F.conv2d(x, *each)) for each in zip(weights, biases))
    return tuple(maps) if residual is None else tuple(residual + y for y in maps)


BACKEND = Backend(
    name='torch',
    run=run,
    tolerances={
        torch.float64: Tolerance(forward=1e-12, gradient=1e-11),
        torch.float32: Tolerance(forward=2e-6, gradient=2e-5),
        torch.float16: Tolerance(forward=2e-3, gradient=2e-3),
        torch.bfloat16: Tolerance(forward=2e-2, gradient=2e-2),
    },
)
