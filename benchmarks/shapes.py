"""The scans of Mamba YOLO, worked out from the tables of its sizes."""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.networks import MAMBA_YOLO

STATES = 16
SSM_RATIO = 2
STRIDES = (4, 8, 16, 32)


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
    """Scans of a forward pass of Mamba YOLO on one image, and how often each is made; largest maps first.

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
    """Every shape that the models have on images of these sides, once each."""
    return list(dict.fromkeys(shape for side in sides for size in sizes for shape in scans_of(size, side)))
