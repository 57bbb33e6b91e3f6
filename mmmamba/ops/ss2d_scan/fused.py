"""The two-dimensional scan on a fused scan: one projection of the unscanned map, then four heads, the directions."""
from __future__ import annotations

from typing import Callable

import torch
from torch import Tensor

from mmmamba.ops.fused_scan import FusedScan

Projection = Callable[[Tensor, Tensor], Tensor]
"""The product of pixels (batch, pixels, channels) and the transpose of a weight (rows, channels)."""


def fused(
    scan: FusedScan,
    project: Projection,
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    pattern: str,
) -> Tensor:
    """Takes what :func:`ss2d_scan` does, after a scan and what multiplies pixels; returns y in the dtype of ``x``."""
    channels, height, width = x.shape[1:]
    heads, rows = x_proj_weight.shape[:2]
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (batch, pixels, channels)
    projected = project(pixels.float(), x_proj_weight.float().flatten(0, 1))
    y, _ = scan(
        pixels,
        projected.unflatten(-1, (heads, rows)),
        None,
        dt_projs_weight.float(),
        dt_projs_bias.float(),
        -torch.exp(A_logs.float()).unflatten(0, (heads, channels)),
        Ds.float().unflatten(0, (heads, channels)),
        None,
        pattern,
        width,
        True,
    )
    return y.unflatten(1, (height, width)).permute(0, 3, 1, 2)
