"""The least time that a GPU needs for a scan, from its ceilings."""
from __future__ import annotations

from typing import NamedTuple

import torch

from benchmarks.shapes import ScanShape

DIRECTIONS = 4
EXP_PER_CLOCK_PER_SM = 16
H200_BANDWIDTH = 4.3
"""TB/s."""
H200_CLOCK = 1.98
"""GHz."""


class Ceilings(NamedTuple):
    """What a device does at most in a second."""

    bytes: float
    exps: float

    @classmethod
    def of(cls, device: torch.device, bandwidth: float, clock: float) -> Ceilings:
        """Of a CUDA device, from its bandwidth in TB/s, its clock in GHz and its number of multiprocessors."""
        processors = torch.cuda.get_device_properties(device).multi_processor_count
        return cls(1e12 * bandwidth, 1e9 * clock * EXP_PER_CLOCK_PER_SM * processors)


def bound_ms(shape: ScanShape, batch: int, element_size: int, backward: bool, ceilings: Ceilings) -> float:
    """Milliseconds that the map's traffic or the exponentials take, whichever is more.

    Of the 9 operations that the count of a scan has for each token, channel, direction and state, one is an
    exponential, by far the dearest. The map is read and y written; with the backward pass, which computes the states
    a second time, the map and y's gradient are read too and the map's gradient is written. Parameters, the projections
    of the pixels and kept states are left out: they could stay in caches.
    """
    tokens = batch * shape.height * shape.width
    maps, evaluations = (5, 2) if backward else (2, 1)
    traffic = maps * tokens * shape.channels * element_size / ceilings.bytes
    exponentials = evaluations * tokens * DIRECTIONS * shape.channels * shape.states / ceilings.exps
    return 1e3 * max(traffic, exponentials)
