"""How a scan is cut into chunks, tiles and blocks of channels."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tiling:
    """Sizes of what a program of each kernel works on; all but ``chunk`` and ``splits`` are powers of two.

    Args:
        chunk: Steps of a chunk; a multiple of the tiles. One chunk spares the local pass and the carry.
        local_tile, final_tile, main_tile: Steps of a tile in the local passes, in the final pass of the forward and
            in the main pass of the backward.
        local_block, final_block, main_block: Channels of a program there. Two rows of a main tile need a lane, so
            that ``2 * main_tile`` is at most 32 and at most ``main_block``.
        carry_rows, carry_block: Chunks and channels that a program of the carry takes at once.
        splits: Parts of the channels whose contributions to the gradient of ``projected`` are summed last.
        programs: Upper limit of programs of the final and main passes, hence of their scratch memory.
    """

    chunk: int
    local_tile: int = 32
    local_block: int = 32
    final_tile: int = 16
    final_block: int = 32
    main_tile: int = 16
    main_block: int = 32
    carry_rows: int = 32
    carry_block: int = 32
    splits: int = 1
    programs: int = 4096

    def __post_init__(self):
        if any(self.chunk % tile for tile in (self.local_tile, self.final_tile, self.main_tile)):
            raise ValueError(f'A chunk of {self.chunk} steps is not a multiple of its tiles: {self}.')
        if 2 * self.main_tile > min(self.main_block, 32):
            raise ValueError(f'A tile of the backward pass has more rows than lanes: {self}.')


def choose_tiling(g):
    return Tiling(64)
