"""What a selective scan costs, and how to see the scans of a forward pass."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Callable
from unittest.mock import patch

import torch
from torch import Tensor

from mmmamba.ops.dispatch import Backend
from mmmamba.ops.scan import selective_scan, ss2d_scan
from mmmamba.ops.scan.fused import scan_flops

DIRECTIONS = 4

Report = Callable[[int, int], None]
"""Called with the FLOPs of a scan's projections and of its recurrence."""


def ss2d_projection_flops(batch: int, length: int, channels: int, states: int, rank: int) -> int:
    """FLOPs of the matrix products that make step, B and C of the four directions: 2 per multiply-add.

    Args:
        batch: B.
        length: Tokens of a direction.
        channels: Channels of the map.
        states: N.
        rank: R, of the step's projection.
    """
    return 2 * batch * length * DIRECTIONS * channels * (rank + 2 * states + rank)


@contextmanager
def scans_reported(report: Report) -> Iterator[None]:
    """While it lasts, every scan is reported and returns zeros, computing nothing: the count depends on no backend."""

    def ss2d(x: Tensor, x_proj_weight: Tensor, dt_projs_weight: Tensor, *args: Any) -> Tensor:
        (batch, channels, height, width), (_, _, rank) = x.shape, dt_projs_weight.shape
        states = (x_proj_weight.shape[1] - rank) // 2
        # The atrous pattern gives each direction a quarter of the map, padded to even sides.
        length = height * width if args[-1] == 'cross' else -(-height // 2) * -(-width // 2)
        report(ss2d_projection_flops(batch, length, channels, states, rank),
               scan_flops(batch, length, DIRECTIONS * channels, states))
        return torch.zeros_like(x)

    def selective(u: Tensor, delta: Tensor, A: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        batch, channels, length = u.shape
        report(0, scan_flops(batch, length, channels, A.shape[1]))
        return torch.zeros_like(u), u.new_zeros(batch, *A.shape)

    with ExitStack() as stack:
        for op, run in ((ss2d_scan, ss2d), (selective_scan, selective)):
            # Under every name that a layer may have been told, so that none of them refuses the device.
            substitutes = tuple(_substitute(backend, run) for backend in op.BACKENDS)
            stack.enter_context(patch.object(op, 'BACKENDS', substitutes))
        yield


def _substitute(backend: Backend, run: Callable[..., Any]) -> Backend:
    return replace(backend, run=run, devices=None, unavailable=None)
