"""The recurrence as the papers write it, one step at a time: what every other backend is compared with."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.ops.dispatch import compute_dtype


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Runs the scan; differentiable, twice if need be, by ordinary autograd.

    Args:
        u, delta: (batch, channels, length).
        A: (channels, N).
        B, C: (batch, groups, N, length), of as many groups, or (channels, N), constant.
        D, delta_bias: (channels,) or None.
        delta_softplus: Whether the step size goes through softplus.

    Returns:
        y (batch, channels, length) and the last state (batch, channels, N), in float32, or float64 if an input is.
    """
    dtype = compute_dtype(u, delta, A, B, C, D, delta_bias)
    u, A, B, C = (tensor.to(dtype) for tensor in (u, A, B, C))  # once: gradients add up, then are rounded
    delta = step_sizes(delta.to(dtype), delta_bias, delta_softplus)
    batch, channels, length = u.shape
    state = u.new_zeros(batch, channels, A.shape[1])
    outputs = []
    for t in range(length):
        B_t, C_t = (_of_step(matrix, t, channels) for matrix in (B, C))
        delta_t = delta[..., t, None]
        state = torch.exp(delta_t * A) * state + delta_t * B_t * u[..., t, None]
        outputs.append((state * C_t).sum(-1))
    # Without steps, an empty sum that has every input in its graph.
    y = torch.stack(outputs, dim=-1) if outputs else u * delta + (A.sum() + B.sum() + C.sum())
    return add_skip(y, u, D), state


def _of_step(matrix: Tensor, t: int, channels: int) -> Tensor:
    """Returns B or C of step t: (batch, channels, N), or (channels, N) if it is constant."""
    if matrix.dim() == 2:
        return matrix
    return matrix[..., t].repeat_interleave(channels // matrix.shape[1], dim=1)


def step_sizes(delta: Tensor, delta_bias: Tensor | None, delta_softplus: bool) -> Tensor:
    """Returns the step sizes of the recurrence, (batch, channels, length)."""
    if delta_bias is not None:
        delta = delta + delta_bias.to(delta.dtype)[:, None]
    return F.softplus(delta) if delta_softplus else delta


def add_skip(y: Tensor, u: Tensor, D: Tensor | None) -> Tensor:
    """Adds the skip connection D u to y."""
    return y if D is None else y + D.to(y.dtype)[:, None] * u
