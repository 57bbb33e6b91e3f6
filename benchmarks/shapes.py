"""The scans of Mamba YOLO, from the tables of its sizes, and the least time that a GPU needs for one."""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch

from benchmarks.networks import MAMBA_YOLO

STATES = 16
SSM_RATIO = 2
STRIDES = (4, 8, 16, 32)
DIRECTIONS = 4
EXP_PER_CLOCK_PER_SM = 16
H200_BANDWIDTH = 4.3
"""TB/s."""
H200_CLOCK = 1.98
"""GHz."""


class ScanShape(NamedTuple):
    """A scan in four directions: channels and size of the map, rank of the step sizes' projection, states."""

    channels: int
    height: int
    width: int
    rank: int
    states: int = STATES

    def __str__(self) -> str:
        return f'{self.channels} x {self.height} x {self.width}'


def scans_of(size: str, side: int) -> Counter[ScanShape]:
    """Counts the scans of a forward pass of Mamba YOLO on one image, and how often each is made; largest maps first.

    A stage has one in each of its blocks. The neck has ``arch.neck`` in each of its four blocks, of which one works at
    stride 8, two at 16 and one at 32.

    Args:
        size: ``'t'``, ``'b'`` or ``'l'``.
        side: Of the square image, in pixels; a multiple of 32.
    """
    if side % STRIDES[-1]:
        raise ValueError(f'side must be a multiple of {STRIDES[-1]}, got {side}')
    arch = MAMBA_YOLO[size]
    return Counter({
        ScanShape(SSM_RATIO * width, side // stride, side // stride, math.ceil(width / 16)): depth + blocks * arch.neck
        for depth, width, stride, blocks in zip(arch.depths, arch.widths, STRIDES, (0, 1, 2, 1))
    })


def distinct_scans(sizes: Sequence[str], sides: Sequence[int]) -> list[ScanShape]:
    """Lists every shape that the models have on images of these sides, once each."""
    return list(dict.fromkeys(shape for side in sides for size in sizes for shape in scans_of(size, side)))


class Ceilings(NamedTuple):
    """What a device does at most in a second."""

    bytes: float
    exps: float

    @classmethod
    def of(cls, device: torch.device, bandwidth: float, clock: float) -> Ceilings:
        """Returns those of a CUDA device, from its bandwidth in TB/s, its clock in GHz and its multiprocessors."""
        processors = torch.cuda.get_device_properties(device).multi_processor_count
        return cls(1e12 * bandwidth, 1e9 * clock * EXP_PER_CLOCK_PER_SM * processors)


def bound_ms(shape: ScanShape, batch: int, element_size: int, backward: bool, ceilings: Ceilings) -> float:
    """Returns the milliseconds that the map's traffic or the exponentials take, whichever is more.

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
