"""How a scan is cut into chunks, tiles, blocks of channels and programs."""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from mmmamba.ops.triton.geometry import Geometry

WARPS = 8  # of one program each, resident on a multiprocessor: what the registers of the main pass leave room for
LONGEST_CHUNK = 512  # whose states before each tile, for all resident programs, are a small multiple of x
SMALL_SCRATCH = 2**22  # float32 numbers, 16 MiB, that any buffer of the backward pass may have


@dataclass(frozen=True)
class Tiling:
    """Sizes of what the programs of the kernels work on.

    Args:
        chunk: Steps of a chunk, a multiple of ``tile``. One chunk spares the local pass and the carry.
        tile: Steps of a tile; a power of two. Two of its rows need a lane: at most 16, and at most ``block / 2``.
        block: Channels of a program; a power of two.
        carry_rows: Chunks that the carry takes at once; a power of two.
        splits: Parts of the channels whose contributions to the gradient of ``projected`` are summed last.
        programs: Upper limit of programs, hence of scratch memory, of the main pass; the final pass has four times as
            many, since they end at different times.
    """

    chunk: int
    tile: int = 16
    block: int = 32
    carry_rows: int = 32
    splits: int = 1
    programs: int = 1024

    def __post_init__(self) -> None:
        if self.chunk % self.tile:
            raise ValueError(f'A chunk must be a multiple of its tiles: {self}.')
        if 2 * self.tile > min(self.block, 32):
            raise ValueError(f'A tile must not have more than half as many steps as lanes: {self}.')


def largest_scratch(g: Geometry) -> int:
    """Returns how many numbers a buffer of the backward pass may have: fewer than four maps, unless it is small."""
    return max(4 * g.batch * g.height * g.width * g.groups * g.channels - 1, SMALL_SCRATCH)


@lru_cache(maxsize=256)
def choose_tiling(g: Geometry, multiprocessors: int, keep: bool) -> Tiling:
    """Returns the tiling for a shape: the longest chunks that still give every multiprocessor its warps.

    Longer chunks have fewer states to keep and to carry; below 32 steps, that work would be no longer small. Where
    batch and channels alone nearly fill the device, a single chunk halves the exponentials of a forward pass alone.
    The rule was fitted to tilings measured on an H100 (``python -m benchmarks.tuning`` measures them for a device).

    Args:
        keep: Whether the backward pass will follow, which takes several times as long, and is cut alike.
    """
    tiling = Tiling(32)
    wanted = WARPS * multiprocessors
    blocks = -(-g.channels // tiling.block)
    sequences = g.batch * g.at_once * blocks
    if not keep and sequences >= wanted * 3 // 4 and g.positions <= LONGEST_CHUNK:
        chunk = -(-g.positions // tiling.tile) * tiling.tile
    else:
        enough = 2 * wanted if keep else wanted
        chunk = next((c for c in (128, 64) if sequences * -(-g.positions // c) >= enough), 32)
    copy = g.batch * g.height * g.width * g.heads * (g.rank + 2 * g.states)  # of the gradient of `projected`
    most_splits = max(largest_scratch(g) // max(copy, 1), 1)
    undivided = g.batch * g.at_once * -(-g.positions // chunk)
    splits = min(-(-wanted // undivided), most_splits, blocks)
    return Tiling(chunk, splits=splits, programs=wanted)
