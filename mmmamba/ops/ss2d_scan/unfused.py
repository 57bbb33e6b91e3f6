"""The two-dimensional scan as a selective scan of four gathered sequences."""
from __future__ import annotations

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.ops.dispatch import compute_dtype
from mmmamba.ops.orders import scan_orders


def unfused(
    scan: Callable[..., tuple[Tensor, Tensor]],
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    pattern: str,
) -> Tensor:
    """Runs ``scan``, a ``run`` of the selective scan's backends, with the four directions as groups of channels.

    Takes the arguments of :func:`ss2d_scan` and returns y (batch, channels, height, width), float32 or float64.
    """
    dtype = compute_dtype(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    x_proj_weight, dt_projs_weight, A_logs = x_proj_weight.to(dtype), dt_projs_weight.to(dtype), A_logs.to(dtype)
    batch, channels, height, width = x.shape
    states, rank = A_logs.shape[1], dt_projs_weight.shape[2]
    orders = scan_orders(pattern, height, width, x.device)
    # Index height * width reads the zero of a padded pixel, and its output is written where nothing reads it.
    pixels = F.pad(x.to(dtype).flatten(2), (0, 1))
    sequences = pixels[:, :, orders].transpose(1, 2)  # (batch, 4, channels, tokens)
    projected = torch.einsum('bkdl,kpd->bkpl', sequences, x_proj_weight)
    dt, B, C = projected.split([rank, states, states], dim=2)
    delta = torch.einsum('bkrl,kdr->bkdl', dt, dt_projs_weight)
    y, _ = scan(
        sequences.flatten(1, 2), delta.flatten(1, 2), -torch.exp(A_logs), B, C, Ds, dt_projs_bias.flatten(), True
    )
    y = y.unflatten(1, (4, channels)).transpose(1, 2).flatten(2)  # (batch, channels, 4 * tokens)
    merged = torch.zeros_like(pixels).index_add(2, orders.flatten(), y)
    return merged[:, :, : height * width].unflatten(2, (height, width))
