"""Which positions the heads of a scan visit, as the kernels need it."""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from mmmamba.ops.scan.fused import ScanInputs


@dataclass(frozen=True)
class Geometry:
    """Units (planes of a map, or groups of channels) and their walks; a head is a walk of a unit.

    ``head = unit + walk * units``. All positions of a unit are visited by each of its walks: the first walk in
    ascending order, the second in descending order.
    """

    batch: int
    units: int
    walks: int
    spacing: int  # of the rows and columns that a unit visits
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
        return self.units if self.walks == 1 and self.spacing == 1 else 1

    @property
    def planes(self) -> int:
        """Returns how many buffers the units need for a sum over all of them; one if no two visit the same element."""
        return self.units if self.walks > 1 else 1

    @property
    def shortest_line(self) -> int:
        """Returns the shorter side of what a unit visits, if that is a map."""
        return min(-(-self.height // self.spacing), -(-self.width // self.spacing))

    @property
    def wide(self) -> bool:
        """Returns whether an offset in a map, or in its projections, exceeds 32 bits; offsets of maps always may."""
        of_pixel = max(self.groups * self.channels, self.heads * (self.rank + 2 * self.states))
        return self.height * self.width * of_pixel >= 2**31


def geometry(inputs: ScanInputs) -> Geometry:
    """Returns the geometry of the inputs of a scan."""
    return _geometry(*inputs.x.shape[:2], *inputs.A.shape, inputs.projected.shape[3], inputs.pattern, inputs.width)


@lru_cache(maxsize=256)
def _geometry(
    batch: int, pixels: int, heads: int, channels: int, states: int, rows: int, pattern: str, width: int
) -> Geometry:
    height = pixels // width if width else 0
    units, walks, spacing = {'sequence': (heads, 1, 1), 'cross': (2, 2, 1), 'atrous': (4, 1, 2)}[pattern]
    return Geometry(
        batch=batch,
        units=units,
        walks=walks,
        spacing=spacing,
        height=height,
        width=width,
        positions=-(-height // spacing) * -(-width // spacing),
        channels=channels,
        states=states,
        rank=rows - 2 * states,
    )
