"""The scan in PyTorch operations, vectorised over chunks of the sequence: runs on any device."""
from __future__ import annotations

import torch
from torch import Tensor

from mmmamba.ops.dispatch import TOLERANCES, Backend, Tolerance, compute_dtype
from mmmamba.ops.selective_scan.autograd import ChunkedScan
from mmmamba.ops.selective_scan.reference import add_skip, step_sizes


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
    """Takes and returns what :func:`reference.scan` does. Its memory grows linearly with the length."""
    dtype = compute_dtype(u, delta, A, B, C, D, delta_bias)
    u = u.to(dtype)
    delta = step_sizes(delta.to(dtype), delta_bias, delta_softplus)
    y, last_state = ChunkedScan.apply(u, delta, A.to(dtype), B.to(dtype), C.to(dtype))
    return add_skip(y, u, D), last_state


BACKEND = Backend(
    name='torch',
    run=scan,
    tolerances={torch.float64: Tolerance(forward=1e-12, gradient=1e-11), **TOLERANCES},
)
