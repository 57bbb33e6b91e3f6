"""What the forward and the backward kernels share; imports Triton, hence itself imported only when a kernel is to run.

In all kernels a *unit* is a plane of a map (the row-major or the column-major positions, a sub-map, or positions that
a table ``orders`` turns into pixels) or a group of channels, a *walk* is one of the directions in which a unit's
positions are visited, and a head is a walk of a unit. A tile is TILE consecutive steps of a walk times BLOCK channels.
A thread owns whole columns of it, so that scans over time stay inside a thread.
"""
from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LARGEST = tl.constexpr(3.4028234663852886e38)  # float32
# Arguments for whose values no kernel of its own is compiled.
SIZES = [
    'items', 'chunks_of_worker', 'first_unit', 'at_once', 'units', 'heads', 'chunks', 'splits', 'blocks', 'tiles',
    'positions', 'height', 'width', 'channels', 'rank', 'plane', 'part',
]  # fmt: skip


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
def softplus_slope(d):
    """Derivative of softplus where its value is d: 1 - exp(-d), by its series where that would cancel."""
    series = 1 / 5040 - d * (1 / 40320)
    series = 1 / 720 - d * series
    series = 1 / 120 - d * series
    series = 1 / 24 - d * series
    series = 1 / 6 - d * series
    series = 1 / 2 - d * series
    return tl.where(d < 0.5, d * (1 - d * series), 1 - tl.exp2(-d * LOG2E))


@triton.jit
def visit(
    first, i, orders_ptr, unit, positions, height, width,
    WALKS: tl.constexpr, SPACING: tl.constexpr, NARROW: tl.constexpr,
):
    """Pixels at the positions ``first + i`` of a unit.

    Returns:
        The pixels, clamped into the map; which of them are steps of the walk; which of these are not padding.
    """
    steps = first + i < positions
    inside = steps
    first = tl.minimum(first, positions - 1)
    i = tl.minimum(i, positions - 1 - first)
    if orders_ptr is not None:
        pixels = tl.load(orders_ptr + unit.to(tl.int64) * positions + first + i)
        steps = steps & (pixels >= 0)
        inside = steps & (pixels < height * width)
        pixels = tl.where(inside, pixels, 0)
    elif WALKS == 1 and SPACING == 1:
        pixels = first + i
    else:
        columns = unit % 2 == 1
        inner = tl.where(columns, (height + SPACING - 1) // SPACING, (width + SPACING - 1) // SPACING)
        outer = first // inner
        within = first - outer * inner
        # A division is dear; where a line is as long as a tile, at most one line ends in it.
        wraps = (within + i) // inner if NARROW else (within + i >= inner).to(tl.int32)
        if SPACING == 1:
            inner_stride = tl.where(columns, width, 1)
            outer_stride = tl.where(columns, 1, width)
            start = outer * outer_stride + within * inner_stride
            pixels = start + i * inner_stride + wraps * (outer_stride - inner * inner_stride)
        else:
            within += i - wraps * inner
            outer += wraps
            row = tl.where(columns, within, outer) * SPACING + unit % 2
            column = tl.where(columns, outer, within) * SPACING + unit // 2
            inside = steps & (row < height) & (column < width)
            pixels = tl.minimum(row, height - 1) * width + tl.minimum(column, width - 1)
    return pixels, steps, inside


@triton.jit
def load_pair(pointers, TILE: tl.constexpr):
    """Loads two columns, each lane one element, whence they go to all lanes through shared memory.

    For a tile of 16 rows, this takes one load instead of 32 that read the same address in all lanes.
    """
    pair = tl.reshape(tl.load(pointers), (2, TILE))
    return tl.split(tl.permute(pair, (1, 0)))


@triton.jit
def pair_rows(rows, distance, TILE: tl.constexpr):
    """Pointers to two columns of the rows, ``distance`` apart: (2 * TILE,), the first column in the first half."""
    return tl.reshape(tl.permute(tl.join(rows, rows + distance), (1, 0)), (2 * TILE,))


@triton.jit
def step_inputs(
    rows, places, inside, in_block, delta_ptr, weight_ptr, bias_ptr, channel, rank,
    PADS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):
    """Step sizes of a tile (TILE, BLOCK) before softplus.

    ``rows`` point to the projections of its pixels, ``delta_ptr + places`` to given step sizes; ``channel`` counts
    the channels of all heads.
    """
    if delta_ptr is not None:
        v = tl.load(delta_ptr + places, mask=in_block[None, :], other=0).to(tl.float32)
        if PADS:
            v = tl.where(inside[:, None], v, 0)
    else:
        v = tl.zeros([TILE, BLOCK], tl.float32)
        pairs = pair_rows(rows, 1, TILE)
        weights = weight_ptr + channel * rank
        for r in range(0, rank, 2):
            dt, next_dt = load_pair(pairs + r, TILE)  # of an odd rank, the last next_dt takes no part
            v += dt[:, None] * tl.load(weights + r, mask=in_block, other=0)[None, :]
            v += next_dt[:, None] * tl.load(weights + r + 1, mask=in_block & (r + 1 < rank), other=0)[None, :]
        if PADS:
            v = tl.where(inside[:, None], v, 0)
    if bias_ptr is not None:
        v += tl.load(bias_ptr + channel, mask=in_block, other=0)[None, :]
    return v


@triton.jit
def open_tile(
    x_ptr, projected_ptr, delta_ptr, weight_ptr, bias_ptr, orders_ptr, batch, unit, head, units, first, backwards, c,
    in_block, positions, height, width, channels, rank,
    N: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, WALKS: tl.constexpr, SPACING: tl.constexpr,
    NARROW: tl.constexpr, WIDE: tl.constexpr, SOFTPLUS: tl.constexpr,
):
    """Loads the tile at the positions from ``first`` on, its first step being the last position if ``backwards``.

    Returns:
        Offsets of its elements in a map of x (TILE, BLOCK); pointers to the projections of its pixels (TILE,); which
        rows are steps and which of these are pixels (TILE,); step sizes, zero where there is no step and hence no
        change of the state; x, zero where there is no pixel.
    """
    PADS: tl.constexpr = SPACING > 1 or orders_ptr is not None
    groups = units if WALKS == 1 and not PADS else 1
    row_length = rank + 2 * N
    s = tl.arange(0, TILE)
    i = TILE - 1 - s if backwards else s
    pixels, steps, inside = visit(first, i, orders_ptr, unit, positions, height, width, WALKS, SPACING, NARROW)
    # Unsigned, since what extends a sign would take a register of each row.
    pixels = pixels.to(tl.int64) if WIDE else pixels.to(tl.uint32)
    places = (pixels * (groups * channels))[:, None] + (unit % groups * channels + c).to(pixels.dtype)[None, :]
    row_stride = units * WALKS * row_length
    rows = projected_ptr + batch * (height * width) * row_stride + head * row_length + pixels * row_stride
    map_start = batch * (height * width) * (groups * channels)
    x_ptr += map_start
    if delta_ptr is not None:
        delta_ptr += map_start
    v = step_inputs(
        rows, places, inside, in_block, delta_ptr, weight_ptr, bias_ptr, head * channels + c, rank,
        PADS, TILE, BLOCK,
    )
    d = tl.where(steps[:, None], softplus(v) if SOFTPLUS else v, 0)
    x = tl.load(x_ptr + places, mask=in_block[None, :], other=0).to(tl.float32)
    x = tl.where(inside[:, None], x, 0)
    return places, rows, steps, inside, d, x


@triton.jit
def _add(left, before_left, right, before_right):
    return left + right, left + before_right


@triton.jit
def running_sums(d):
    """Sums of the rows of a tile up to and including each of them, and up to but without it.

    The second is no difference of the first and the row, which would cancel where the row is large.
    """
    return tl.associative_scan((d, tl.zeros_like(d)), 0, _add)


@triton.jit
def _pass_state(source, target, has_source, in_block, A_place, W_place, total, exponents, inputs, column):
    A = tl.load(A_place, mask=in_block, other=0) * LOG2E
    state = tl.load(source, mask=in_block & has_source, other=0) * tl.exp2(total * A)
    added = tl.sum(tl.exp2(exponents * A[None, :]) * (inputs * column[:, None]), 0)
    if W_place is not None:
        added *= tl.load(W_place, mask=in_block, other=0)
    tl.store(target, state + added, mask=in_block)


@triton.jit
def pass_tile(
    source, target, stride, has_source, in_block, A_places, W_places, channels, total, exponents, inputs, columns,
    N: tl.constexpr, TILE: tl.constexpr,
):
    """Carries states, or gradients of states, over a tile without the values between its steps.

    For each n, ``target[n] = exp(total A[n]) source[n] + W[n] sum_t exp(exponents[t] A[n]) inputs[t] columns[t, n]``,
    with zero if there is no source, and ones where W is None.
    """
    STEP: tl.constexpr = 2 if N % 2 == 0 else 1
    pairs = pair_rows(columns, STEP - 1, TILE)
    for n in range(0, N, STEP):
        column, next_column = load_pair(pairs + n, TILE)
        _pass_state(
            source + n * stride, target + n * stride, has_source, in_block, A_places + n * channels,
            None if W_places is None else W_places + n * channels, total, exponents, inputs, column,
        )
        if STEP == 2:
            _pass_state(
                source + (n + 1) * stride, target + (n + 1) * stride, has_source, in_block,
                A_places + (n + 1) * channels, None if W_places is None else W_places + (n + 1) * channels,
                total, exponents, inputs, next_column,
            )


@triton.jit
def copy_states(source, target, source_strides, target_strides, mask, N: tl.constexpr, NS: tl.constexpr):
    """Copies a state of each channel in a block, zero where masked; ``NS`` is N or the next power of two."""
    n = tl.arange(0, NS)[:, None]
    there = n < N
    values = tl.load(source[None, :] + n * source_strides, mask=there & mask[None, :], other=0)
    tl.store(target[None, :] + n * target_strides, values, mask=there)


@triton.jit
def sum_rows(first, second, TILE: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of two tiles (TILE, BLOCK) over their channels.

    A sum over the lanes of each row would exchange every row in log2(32) steps. Here each step exchanges half of the
    rows that are left, and a lane goes on with the other half: 31 exchanges instead of 160 for 32 rows.

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
