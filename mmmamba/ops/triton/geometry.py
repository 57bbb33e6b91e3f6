"""Which positions the heads of a scan visit, as the kernels need it."""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmmamba.ops.scan.fused import ScanInputs
from mmmamba.ops.scan.orders import PATTERNS, scan_order, token_count


@dataclass(frozen=True)
class Geometry:
    """Units (planes of a map, or groups of channels) and their walks; a head is a walk of a unit.

    ``head = unit + walk * units``. All positions of a unit are visited by each of its walks: the first walk in
    ascending order, the second in descending order. The pixels at the positions are computed for sequences, 'cross'
    and 'atrous'; other units are directions that are looked up in a table.
    """

    batch: int
    units: int
    walks: int
    spacing: int  # of the rows and columns that a unit visits
    looked_up: bool
    height: int
    width: int
    positions: int
    channels: int
    states: int
    rank: int

    @property
    def heads(self) -> int:
        return self.units * self.walks

    @property
    def groups(self) -> int:
        """Returns how many groups of channels a pixel of x has."""
        return self.units if self.walks == 1 and self.spacing == 1 and not self.looked_up else 1

    @property
    def planes(self) -> int:
        """Returns how many buffers the units at once need for their sum; one if no two visit the same element."""
        return self.units if self.walks > 1 else 1

    @property
    def at_once(self) -> int:
        """Returns how many units write their outputs at once; the others take turns to add to them."""
        return 1 if self.looked_up else self.units

    @property
    def pads(self) -> bool:
        """Returns whether a step may be padding, and a direction leave out pixels."""
        return self.spacing > 1 or self.looked_up

    @property
    def shortest_line(self) -> int:
        """Returns the shorter side of what a unit visits, if that is a map."""
        return min(-(-self.height // self.spacing), -(-self.width // self.spacing))

    @property
    def wide(self) -> bool:
        """Returns whether an offset in a map, or in its projections, exceeds 32 bits; offsets of maps always may."""
        of_pixel = max(self.groups * self.channels, self.heads * (self.rank + 2 * self.states))
        return self.height * self.width * of_pixel >= 2**31


# Units, walks and spacing; of a sequence, as many units as heads.
_COMPUTED = {('h',): (1, 1, 1), PATTERNS['cross']: (2, 2, 1), PATTERNS['atrous']: (4, 1, 2)}


def geometry(inputs: ScanInputs) -> Geometry:
    """Returns the geometry of the inputs of a scan."""
    return _geometry(*inputs.x.shape[:2], *inputs.A.shape, inputs.projected.shape[3],
                     tuple(inputs.directions), inputs.width)


@lru_cache(maxsize=256)
def _geometry(
    batch: int, pixels: int, heads: int, channels: int, states: int, rows: int, directions: tuple[str, ...], width: int
) -> Geometry:
    height = pixels // width if width else 0
    units, walks, spacing = _COMPUTED.get(directions, (len(directions), 1, 1))
    looked_up = directions not in _COMPUTED
    if directions == ('h',):
        units = heads
    positions = max(token_count(direction, height, width) for direction in directions)
    return Geometry(
        batch=batch,
        units=units,
        walks=walks,
        spacing=spacing,
        looked_up=looked_up,
        height=height,
        width=width,
        positions=positions,
        channels=channels,
        states=states,
        rank=rows - 2 * states,
    )


@lru_cache(maxsize=64)
def order_table(directions: tuple[str, ...], height: int, width: int, device: torch.device) -> Tensor:
    """Returns the pixel of every step (directions, positions), int32: height·width for padding, -1 after the last."""
    with torch.inference_mode(False):  # a kept tensor must serve training too
        orders = [scan_order(direction, height, width, device) for direction in directions]
        table = pad_sequence(orders, batch_first=True, padding_value=-1)
        return table.to(torch.int32)
