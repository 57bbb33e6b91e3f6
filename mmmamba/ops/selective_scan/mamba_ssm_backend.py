"""The compiled CUDA scan of the mamba_ssm package, where that is installed: for comparison, never chosen by itself."""
from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from mmmamba.ops.dispatch import TOLERANCES, Backend

UNAVAILABLE = None if find_spec('mamba_ssm') else 'The package mamba_ssm is not installed.'


def unavailable() -> str | None:
    """Returns why the package cannot be used, or None if it can."""
    return UNAVAILABLE


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
    """Takes and returns what :func:`reference.scan` does, but y in the dtype of ``u``.

    delta takes that dtype too, and so do B and C unless they are constant.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    D, delta_bias = (None if vector is None else vector.float() for vector in (D, delta_bias))
    B, C = (matrix.to(torch.float32 if matrix.dim() == 2 else u.dtype).contiguous() for matrix in (B, C))
    delta = delta.to(u.dtype).contiguous()
    u, A = u.contiguous(), A.float().contiguous()
    return selective_scan_fn(u, delta, A, B, C, D, None, delta_bias, delta_softplus, return_last_state=True)


BACKEND = Backend(
    name='mamba_ssm',
    run=scan,
    tolerances=TOLERANCES,
    devices=('cuda',),
    unavailable=unavailable,
)
