"""The scan in the native kernel: groups of channels are its heads, scanned in one direction."""
from __future__ import annotations

import torch
from torch import Tensor

from mmmamba.ops.cpu import native
from mmmamba.ops.cpu.autograd import native_scan
from mmmamba.ops.dispatch import Backend, Tolerance


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    isa: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Takes and returns what :func:`reference.scan` does, in float32; ``isa`` names an instruction set."""
    batch, channels, length = u.shape
    groups, states = B.shape[1], A.shape[1]

    def per_head(parameter: Tensor | None) -> Tensor | None:
        return None if parameter is None else parameter.float().unflatten(0, (groups, channels // groups))

    y, last_state = native_scan(
        u.float().transpose(1, 2),
        torch.cat([B, C], dim=2).float().permute(0, 3, 1, 2),
        delta.float().transpose(1, 2),
        None,
        per_head(delta_bias),
        per_head(A),
        per_head(D),
        torch.arange(length, dtype=torch.int32, device='cpu').unsqueeze(0),
        delta_softplus,
        isa,
    )
    return y.transpose(1, 2), last_state.reshape(batch, channels, states)


BACKEND = Backend(
    name='cpu',
    run=scan,
    tolerances={
        torch.float32: Tolerance(forward=2e-6, gradient=2e-5),
        torch.float16: Tolerance(forward=1e-3, gradient=1e-3),
        torch.bfloat16: Tolerance(forward=8e-3, gradient=8e-3),
    },
    devices=('cpu',),
    unavailable=native.unavailable,
)
