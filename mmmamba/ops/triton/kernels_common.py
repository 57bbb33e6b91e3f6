"""What the forward and the backward kernels share; imports Triton, hence itself imported only when a kernel is to run.

In all kernels a *unit* is a plane of a map (the row-major or the column-major positions, or a sub-map) or a group of
channels, a *walk* is one of the directions in which a unit's positions are visited, and a head is a walk of a unit. A
tile is TILE consecutive steps of a walk times BLOCK channels. A thread owns whole columns of it, so that scans over
time stay inside a thread.
"""
from __future__ import annotations

import triton
import triton.language as tl



LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def softplus(v):
    """log(1 + exp(v)), as 2 atanh(s) to keep the relative accuracy where the result is small."""
    e = tl.exp2(-tl.abs(v) * LOG2E)
    s = e / (2 + e)
    z = s * s
    p = 0.1400599181652069 * z + 0.14000903069972992
    p = p * z + 0.2001076340675354
    p = p * z + 0.3333320915699005
    p = p * z + 1
    return tl.maximum(v, 0) + 2 * s * p


@triton.jit
def sigmoid(v):
    """Derivative of softplus."""
    e = tl.exp2(-tl.abs(v) * LOG2E)
    return tl.where(v > 0, 1.0, e) / (1 + e)


@triton.jit
def visit(first, i, unit, positions, height, width, WALKS: tl.constexpr, SPACING: tl.constexpr, NARROW: tl.constexpr):
    """Pixels at the positions ``first + i`` of a unit.

    Returns:
        The pixels, clamped into the map; which of them are steps of the walk; which of these are not padding.
    """
    steps = first + i < positions
    i = tl.minimum(i, positions - 1 - first)
    if WALKS == 1 and SPACING == 1:
        pixels = first + i
        inside = steps
    else:
        columns = unit % 2 == 1
        inner = tl.where(columns, (height + SPACING - 1) // SPACING, (width + SPACING - 1) // SPACING)
        outer = first // inner
        within = first - outer * inner + i
        # A division is dear; where a line is as long as a tile, at most one line ends in it.
        wraps = within // inner if NARROW else (within >= inner).to(tl.int32)
        within -= wraps * inner
        outer += wraps
        if SPACING == 1:
            pixels = outer * tl.where(columns, 1, width) + within * tl.where(columns, width, 1)
            inside = steps
        else:
            row = tl.where(columns, within, outer) * SPACING + unit % 2
            column = tl.where(columns, outer, within) * SPACING + unit // 2
            inside = steps & (row < height) & (column < width)
            pixels = tl.minimum(row, height - 1) * width + tl.minimum(column, width - 1)
    return pixels, steps, inside


@triton.jit
def step_inputs(
    rows, offsets, mask, inside, delta_ptr, weight_ptr, bias_ptr, c, in_block, head, channels, rank,
    SPACING: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):
    """Step sizes of a tile (TILE, BLOCK) before softplus; ``rows`` point to the projections of its pixels."""
    channel = head * channels + c
    if delta_ptr is not None:
        v = tl.load(delta_ptr + offsets, mask=mask, other=0).to(tl.float32)
    else:
        v = tl.zeros([TILE, BLOCK], tl.float32)
        for r in range(rank):
            weight = tl.load(weight_ptr + channel * rank + r, mask=in_block, other=0)
            v += tl.load(rows + r)[:, None] * weight[None, :]
        if SPACING > 1:
            v = tl.where(inside[:, None], v, 0)
    if bias_ptr is not None:
        v += tl.load(bias_ptr + channel, mask=in_block, other=0)[None, :]
    return v


@triton.jit
def step_sizes(v, steps, SOFTPLUS: tl.constexpr):
    """Step sizes of a tile, zero where there is no step: then the state stays as it is."""
    if SOFTPLUS:
        v = softplus(v)
    return tl.where(steps[:, None], v, 0)


@triton.jit
def _add(left, right):
    return left + right


@triton.jit
def running_sums(d):
    """Sums of the rows of a tile up to each of them."""
    return tl.associative_scan(d, 0, _add)


@triton.jit
def load_pair(pointers, TILE: tl.constexpr):
    pair = tl.reshape(tl.load(pointers), (2, TILE))
    return tl.split(tl.permute(pair, (1, 0)))


@triton.jit
def pair_rows(rows, distance, TILE: tl.constexpr):
    """Pointers to two columns of the rows, ``distance`` apart: (2 * TILE,), the first column in the first half."""
    return tl.reshape(tl.permute(tl.join(rows, rows + distance), (1, 0)), (2 * TILE,))


@triton.jit
def sum_rows(first, second, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of two tiles (TILE, BLOCK) over their channels.

    A sum over the lanes of each row would exchange every row in log2(32) steps. Here each step exchanges half of the
    rows that are left, and a lane goes on with the other half: 31 exchanges in place of 160 for 32 rows.

    Returns:
        (LANES,) with LANES = min(BLOCK, 32): lane l has the sum of row ``l // (LANES // (2 * TILE))`` of both tiles,
        one after the other.
    """
    LANES: tl.constexpr = min(BLOCK, 32)
    ROWS: tl.constexpr = 2 * TILE
    both = tl.permute(tl.join(first, second), (2, 0, 1))
    # Channels beyond the lanes are in the same thread.
    sums = tl.sum(tl.reshape(both, (ROWS, BLOCK // LANES, LANES)), 1)
    lane = tl.arange(0, LANES)[None, :]
    for level in tl.static_range(5):
        if LANES >> (level + 1) > 0:
            partner = lane ^ (LANES >> (level + 1))
            if ROWS >> (level + 1) > 0:
                halves = tl.permute(tl.reshape(sums, (2, ROWS >> (level + 1), LANES)), (1, 2, 0))
                lower, upper = tl.split(halves)
                keeps_upper = tl.broadcast_to(partner < lane, lower.shape)
                sent = tl.where(keeps_upper, lower, upper)
                sums = tl.where(keeps_upper, upper, lower)
            else:
                sent = sums
            sums += tl.gather(sent, tl.broadcast_to(partner, sent.shape), 1)
    return tl.reshape(sums, (LANES,))
