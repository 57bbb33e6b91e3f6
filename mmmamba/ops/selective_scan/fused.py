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
    """Takes and returns what :func:`reference.scan` does, but y in the dtype of ``u``.

    A constant B or C becomes a weight W of the states in the output, and ones in its own place: what is kept for every
    token does not grow with the channels. The states are those over B then, and the last one is multiplied by it.
    """
    batch, channels, length = u.shape
    states = A.shape[1]
    groups = next((matrix.shape[1] for matrix in (B, C) if matrix.dim() == 4), 1)

    def per_head(parameter: Tensor | None) -> Tensor | None:
        return None if parameter is None else parameter.float().unflatten(0, (groups, channels // groups))

    def per_token(matrix: Tensor) -> Tensor:
        if matrix.dim() == 4:
            return matrix.float()
        return torch.ones((), dtype=torch.float32, device=u.device).expand(batch, groups, states, length)

    constant_B, constant_C = (matrix.float() if matrix.dim() == 2 else None for matrix in (B, C))
    W = constant_B if constant_C is None else constant_C if constant_B is None else constant_B * constant_C
    y, last_state = scan(
        u.transpose(1, 2),
        torch.cat([per_token(B), per_token(C)], dim=2).permute(0, 3, 1, 2),
        delta.transpose(1, 2),
        None,
        per_head(delta_bias),
        per_head(A),
        per_head(D),
        per_head(W),
        'sequence',
        length,
        delta_softplus,
    )
    last_state = last_state.reshape(batch, channels, states)
    return y.transpose(1, 2), last_state if constant_B is None else last_state * constant_B
