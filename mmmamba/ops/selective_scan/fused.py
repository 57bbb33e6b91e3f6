"""The selective scan on a fused scan: its heads are the groups of channels, scanned in one direction."""
from __future__ import annotations

import torch
from torch import Tensor

from mmmamba.ops.fused_scan import FusedScan


def fused(
    scan: FusedScan,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Takes and returns what :func:`reference.scan` does, but y in the dtype of ``u``."""
    batch, channels, length = u.shape
    groups, states = B.shape[1], A.shape[1]

    def per_head(parameter: Tensor | None) -> Tensor | None:
        return None if parameter is None else parameter.float().unflatten(0, (groups, channels // groups))

    y, last_state = scan(
        u.transpose(1, 2),
        torch.cat([B, C], dim=2).float().permute(0, 3, 1, 2),
        delta.transpose(1, 2),
        None,
        per_head(delta_bias),
        per_head(A),
        per_head(D),
        'sequence',
        length,
        delta_softplus,
    )
    return y.transpose(1, 2), last_state.reshape(batch, channels, states)
