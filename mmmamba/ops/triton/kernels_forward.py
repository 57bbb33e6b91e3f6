"""Kernels of the forward pass: local pass, carry (also of the backward pass) and final pass; see README.md."""
from __future__ import annotations

import triton
import triton.language as tl

from mmmamba.ops.triton.kernels_common import LOG2E, step_inputs, step_sizes, load_pair, pair_rows, running_sums, visit


@triton.jit
def _compose(decay_left, state_left, decay_right, state_right):
    return decay_left * decay_right, decay_right * state_left + state_right


@triton.jit
def local_states(
    x_ptr, projected_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, states_ptr, sums_ptr,
    units, chunks, blocks, tiles, positions, height, width, channels, rank,
    N: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, WALKS: tl.constexpr, SPACING: tl.constexpr,
    NARROW: tl.constexpr, SOFTPLUS: tl.constexpr,
):
    """End state of every chunk from a zero start, and the sum of its step sizes, in the slot of its successor."""
    program = tl.program_id(0)
    block = program % blocks
    chunk = program // blocks % chunks
    unit = program // (blocks * chunks) % units
    batch = (program // (blocks * chunks * units)).to(tl.int64)
    heads = units * WALKS
    x_stride = channels * (units if WALKS == 1 and SPACING == 1 else 1)
    x_start = batch * height * width * x_stride + (unit * channels if WALKS == 1 and SPACING == 1 else 0)
    row_length = rank + 2 * N
    s = tl.arange(0, TILE)
    c = block * BLOCK + tl.arange(0, BLOCK)
    in_block = c < channels
    for walk in range(WALKS):
        head = unit + walk * units
        slot = (chunk if walk == 0 else chunks - 1 - chunk) + 1
        if slot < chunks:
            slot_index = (batch * heads + head) * chunks + slot
            later = tl.zeros([BLOCK], tl.float32)
            for back in range(tiles):
                # From the last step of the walk to its first.
                first = (chunk * tiles + (tiles - 1 - back if walk == 0 else back)) * TILE
                i = TILE - 1 - s if walk == 0 else s
                pixels, steps, inside = visit(first, i, unit, positions, height, width, WALKS, SPACING, NARROW)
                offsets = x_start + pixels.to(tl.int64)[:, None] * x_stride + c[None, :]
                mask = inside[:, None] & in_block[None, :]
                rows = projected_ptr + ((batch * height * width + pixels) * heads + head) * row_length
                v = step_inputs(
                    rows, offsets, mask, inside, delta_ptr, weight_ptr, bias_ptr, c, in_block, head, channels, rank,
                    SPACING, TILE, BLOCK,
                )
                d = step_sizes(v, steps, SOFTPLUS)
                after = (running_sums(d) - d + later[None, :]) * LOG2E
                later += tl.sum(d, 0)
                dx = d * tl.load(x_ptr + offsets, mask=mask, other=0).to(tl.float32)
                for n in range(N):
                    A = tl.load(A_ptr + (head * N + n) * channels + c, mask=in_block, other=0)
                    B = tl.load(rows + rank + n)
                    place = states_ptr + (slot_index * N + n) * channels + c
                    state = tl.load(place, mask=in_block & (back > 0), other=0)
                    state += tl.sum(tl.exp2(after * A[None, :]) * (dx * B[:, None]), 0)
                    tl.store(place, state, mask=in_block)
            tl.store(sums_ptr + slot_index * channels + c, later, mask=in_block)


@triton.jit
def carry(
    states_ptr, sums_ptr, A_ptr, initial_ptr,
    heads, chunks, blocks, channels,
    N: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, REVERSE: tl.constexpr,
):
    """Turns the local result in the slot of each chunk into that of all chunks before it (after it, if reversed).

    A slot has its local result and, in ``sums``, the step sizes of the chunk that it comes from. The first slot of
    the walk (the last, if reversed) is not read; it becomes ``initial``, or stays undefined if that is None.
    """
    program = tl.program_id(0)
    block = program % blocks
    n = program // blocks % N
    head = program // (blocks * N) % heads
    batch = (program // (blocks * N * heads)).to(tl.int64)
    c = block * BLOCK + tl.arange(0, BLOCK)
    in_block = c < channels
    row = tl.arange(0, ROWS)
    A = tl.load(A_ptr + (head * N + n) * channels + c, mask=in_block, other=0) * LOG2E
    slots = (batch * heads + head) * chunks
    state = tl.zeros([BLOCK], tl.float32)
    if initial_ptr is not None:
        state = tl.load(initial_ptr + ((batch * heads + head) * channels + c) * N + n, mask=in_block, other=0)
        end = slots + (chunks - 1 if REVERSE else 0)
        tl.store(states_ptr + (end * N + n) * channels + c, state, mask=in_block)
    for start in range(1, chunks, ROWS):
        i = start + row
        slot = slots + (chunks - 1 - i if REVERSE else i)
        mask = (i < chunks)[:, None] & in_block[None, :]
        place = states_ptr + (slot[:, None] * N + n) * channels + c[None, :]
        local = tl.load(place, mask=mask, other=0)
        decay = tl.exp2(tl.load(sums_ptr + slot[:, None] * channels + c[None, :], mask=mask, other=0) * A[None, :])
        local += tl.where(row[:, None] == 0, decay * state[None, :], 0)
        _, local = tl.associative_scan((decay, local), 0, _compose)
        tl.store(place, local, mask=mask)
        state = tl.sum(tl.where(row[:, None] == ROWS - 1, local, 0), 0)


@triton.jit
def final(
    x_ptr, projected_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, D_ptr, states_ptr, scratch_ptr, y_ptr, last_ptr,
    items, units, chunks, blocks, tiles, positions, height, width, channels, rank, plane,
    N: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, WALKS: tl.constexpr, SPACING: tl.constexpr,
    NARROW: tl.constexpr, SOFTPLUS: tl.constexpr,
):
    """Output of every chunk from its entering states; the walks of a unit add to one plane of y.

    A program's slots of ``scratch`` hold the running states between its tiles.
    """
    program = tl.program_id(0)
    heads = units * WALKS
    x_stride = channels * (units if WALKS == 1 and SPACING == 1 else 1)
    row_length = rank + 2 * N
    s = tl.arange(0, TILE)
    running = scratch_ptr + program.to(tl.int64) * (N * BLOCK) + tl.arange(0, BLOCK)
    for item in range(program, items, tl.num_programs(0)):
        block = item % blocks
        chunk = item // blocks % chunks
        unit = item // (blocks * chunks) % units
        batch = (item // (blocks * chunks * units)).to(tl.int64)
        x_start = batch * height * width * x_stride + (unit * channels if WALKS == 1 and SPACING == 1 else 0)
        c = block * BLOCK + tl.arange(0, BLOCK)
        in_block = c < channels
        for walk in range(WALKS):
            head = unit + walk * units
            slot = chunk if walk == 0 else chunks - 1 - chunk
            slot_index = (batch * heads + head) * chunks + slot
            if D_ptr is not None:
                D = tl.load(D_ptr + head * channels + c, mask=in_block, other=0)
            for tile in range(tiles):
                first = (chunk * tiles + (tile if walk == 0 else tiles - 1 - tile)) * TILE
                i = s if walk == 0 else TILE - 1 - s
                pixels, steps, inside = visit(first, i, unit, positions, height, width, WALKS, SPACING, NARROW)
                offsets = x_start + pixels.to(tl.int64)[:, None] * x_stride + c[None, :]
                mask = inside[:, None] & in_block[None, :]
                rows = projected_ptr + ((batch * height * width + pixels) * heads + head) * row_length
                v = step_inputs(
                    rows, offsets, mask, inside, delta_ptr, weight_ptr, bias_ptr, c, in_block, head, channels, rank,
                    SPACING, TILE, BLOCK,
                )
                d = step_sizes(v, steps, SOFTPLUS)
                x = tl.load(x_ptr + offsets, mask=mask, other=0).to(tl.float32)
                y_place = y_ptr + unit * plane + offsets
                y = tl.zeros([TILE, BLOCK], tl.float32)
                if WALKS > 1:
                    y = tl.load(y_place, mask=mask & (walk > 0), other=0)
                if D_ptr is not None:
                    y += D[None, :] * x
                dx = d * x
                BC = pair_rows(rows + rank, N, TILE)
                from_slot = in_block & (tile == 0) & (slot > 0)
                to_last = in_block & (tile == tiles - 1) & (slot == chunks - 1)
                for n in range(N):
                    A = tl.load(A_ptr + (head * N + n) * channels + c, mask=in_block, other=0) * LOG2E
                    B, C = load_pair(BC + n, TILE)
                    state = tl.load(states_ptr + (slot_index * N + n) * channels + c, mask=from_slot, other=0)
                    state += tl.load(running + n * BLOCK, mask=in_block & (tile > 0), other=0)
                    decay = tl.exp2(d * A[None, :])
                    h = dx * B[:, None] + tl.where(s[:, None] == 0, decay * state[None, :], 0)
                    _, h = tl.associative_scan((decay, h), 0, _compose)
                    y += h * C[:, None]
                    state = tl.sum(tl.where(s[:, None] == TILE - 1, h, 0), 0)
                    tl.store(running + n * BLOCK, state, mask=in_block)
                    tl.store(last_ptr + ((batch * heads + head) * channels + c) * N + n, state, mask=to_last)
                tl.store(y_place, y.to(y_ptr.dtype.element_ty), mask=mask)
                tl.debug_barrier()  # the next tile or walk reads what this one has written
