"""Kernels of the forward pass: local pass, carry (also of the backward pass) and final pass; see README.md."""
from __future__ import annotations

import triton
import triton.language as tl

from mmmamba.ops.triton.kernels_common import (
    LARGEST,
    LOG2E,
    SIZES,
    copy_states,
    load_pair,
    open_tile,
    pair_rows,
    pass_tile,
    running_sums,
)


@triton.jit(do_not_specialize=SIZES)
def local_pass(
    inputs_ptr, projected_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, W_ptr, orders_ptr, states_ptr, sums_ptr,
    units, chunks, blocks, tiles, positions, height, width, channels, rank,
    N: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, WALKS: tl.constexpr, SPACING: tl.constexpr,
    NARROW: tl.constexpr, WIDE: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
):
    """What a chunk alone hands on: its end state from a zero start, in the slot of its successor.

    Reversed, what its outputs alone give to the gradient of its entering state, in the slot of its predecessor;
    ``inputs`` are x, or the gradient of y; W takes part reversed only. The sum of the step sizes of the chunk goes to
    the same slot of ``sums``.
    """
    program = tl.program_id(0)
    block = program % blocks
    chunk = program // blocks % chunks
    unit = program // (blocks * chunks) % units
    batch = (program // (blocks * chunks * units)).to(tl.int64)
    c = block * BLOCK + tl.arange(0, BLOCK)
    in_block = c < channels
    for walk in range(WALKS):
        head = unit + walk * units
        slot = (chunk if walk == 0 else chunks - 1 - chunk) + (-1 if REVERSE else 1)
        if slot >= 0 and slot < chunks:
            slot_index = (batch * (units * WALKS) + head) * chunks + slot
            place = states_ptr + slot_index * N * channels + c
            all_steps = tl.zeros([BLOCK], tl.float32)
            # Rows in the order against the walk make the sums after each step running sums.
            descending = walk == (1 if REVERSE else 0)
            for tile in range(tiles):
                first = (chunk * tiles + (tile if (walk == 0) != REVERSE else tiles - 1 - tile)) * TILE
                places, rows, steps, inside, d, inputs = open_tile(
                    inputs_ptr, projected_ptr, delta_ptr, weight_ptr, bias_ptr, orders_ptr, batch, unit, head, units,
                    first, descending, c, in_block, positions, height, width, channels, rank,
                    N, TILE, BLOCK, WALKS, SPACING, NARROW, WIDE, SOFTPLUS,
                )
                sums, sums_before = running_sums(d)
                pass_tile(
                    place, place, channels, tile > 0, in_block, A_ptr + head * N * channels + c,
                    W_ptr + head * N * channels + c if REVERSE and W_ptr is not None else None, channels,
                    tl.sum(d, 0), sums if REVERSE else sums_before, inputs if REVERSE else d * inputs,
                    rows + rank + (N if REVERSE else 0), N, TILE,
                )
                all_steps += tl.sum(d, 0)
            tl.store(sums_ptr + slot_index * channels + c, all_steps, mask=in_block)


@triton.jit
def _compose(decay_left, state_left, decay_right, state_right):
    return decay_left * decay_right, decay_right * state_left + state_right


@triton.jit
def _compose_roots(root_left, state_left, root_right, state_right):
    """As :func:`_compose`, with square roots of the decays, made finite."""
    return tl.minimum(root_left * root_right, LARGEST), root_right * (root_right * state_left) + state_right


@triton.jit(do_not_specialize=SIZES)
def carry(
    states_ptr, sums_ptr, A_ptr, initial_ptr,
    heads, chunks, blocks, channels,
    N: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, REVERSE: tl.constexpr,
):
    """Turns the local result in the slot of each chunk into that of all chunks before it (after it, if reversed).

    A slot has its local result and, in ``sums``, the step sizes of the chunk that it comes from. The first slot of
    the walk (the last, if reversed) is not read; it becomes ``initial``, or stays undefined if that is None.

    The decay of many steps may exceed float32 where the state after them does not, and a state of zero stays zero:
    hence finite square roots of decays. A step whose decay is not a number shows in the local results.
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
    states = states_ptr + (slots * N + n) * channels + c
    sums = sums_ptr + slots * channels + c
    state = tl.zeros([BLOCK], tl.float32)
    if initial_ptr is not None:
        state = tl.load(initial_ptr + ((batch * heads + head) * channels + c) * N + n, mask=in_block, other=0)
        end = slots + (chunks - 1 if REVERSE else 0)
        tl.store(states_ptr + (end * N + n) * channels + c, state, mask=in_block)
    for start in range(1, chunks, ROWS):
        i = start + row
        slot = (chunks - 1 - i if REVERSE else i).to(tl.int64)
        mask = (i < chunks)[:, None] & in_block[None, :]
        place = states[None, :] + (slot * (N * channels))[:, None]
        local = tl.load(place, mask=mask, other=0)
        sum_of_steps = tl.load(sums[None, :] + (slot * channels)[:, None], mask=mask, other=0)
        root = tl.minimum(tl.exp2(sum_of_steps * (A * 0.5)[None, :]), LARGEST)
        local += tl.where(row[:, None] == 0, root * (root * state[None, :]), 0)
        root, local = tl.associative_scan((root, local), 0, _compose_roots)
        tl.store(place, local, mask=mask)
        state = tl.sum(tl.where(row[:, None] == ROWS - 1, local, 0), 0)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=['scratch_ptr'])
def final_pass(
    x_ptr, projected_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, D_ptr, W_ptr, orders_ptr, states_ptr, scratch_ptr,
    y_ptr, last_ptr, items, first_unit, at_once, units, chunks, blocks, tiles, positions, height, width, channels,
    rank, plane,
    N: tl.constexpr, NS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, WALKS: tl.constexpr,
    SPACING: tl.constexpr, NARROW: tl.constexpr, WIDE: tl.constexpr, SOFTPLUS: tl.constexpr,
):
    """Output of every chunk from its entering states; the walks of a unit add to one plane of y.

    Of all units, those from ``first_unit`` on take part, ``at_once`` of them. Those that are looked up add to y.

    A program's slot of ``scratch`` holds the running states between its tiles.
    """
    program = tl.program_id(0)
    s = tl.arange(0, TILE)
    running = scratch_ptr + program.to(tl.int64) * (N * BLOCK) + tl.arange(0, BLOCK)
    for item in range(program, items, tl.num_programs(0)):
        block = item % blocks
        chunk = item // blocks % chunks
        unit = first_unit + item // (blocks * chunks) % at_once
        batch = (item // (blocks * chunks * at_once)).to(tl.int64)
        c = block * BLOCK + tl.arange(0, BLOCK)
        in_block = c < channels
        groups = units if WALKS == 1 and SPACING == 1 and orders_ptr is None else 1
        y_start = unit.to(tl.int64) * plane + batch * (height * width) * (groups * channels)
        for walk in range(WALKS):
            head = unit + walk * units
            slot = chunk if walk == 0 else chunks - 1 - chunk
            head_index = batch * (units * WALKS) + head
            entering = states_ptr + (head_index * chunks + slot) * N * channels + c
            copy_states(entering, running, channels, BLOCK, in_block & (slot > 0), N, NS)
            tl.debug_barrier()
            for tile in range(tiles):
                first = (chunk * tiles + (tile if walk == 0 else tiles - 1 - tile)) * TILE
                places, rows, steps, inside, d, x = open_tile(
                    x_ptr, projected_ptr, delta_ptr, weight_ptr, bias_ptr, orders_ptr, batch, unit, head, units, first,
                    walk == 1, c, in_block, positions, height, width, channels, rank,
                    N, TILE, BLOCK, WALKS, SPACING, NARROW, WIDE, SOFTPLUS,
                )
                y_places = y_ptr + y_start + places
                if orders_ptr is not None:
                    y = tl.load(y_places, mask=in_block[None, :], other=0)
                elif WALKS > 1:
                    y = tl.load(y_places, mask=in_block[None, :] & (walk > 0), other=0)
                else:
                    y = tl.zeros([TILE, BLOCK], tl.float32)
                if D_ptr is not None:
                    y += tl.load(D_ptr + head * channels + c, mask=in_block, other=0)[None, :] * x
                dx = d * x
                BC = pair_rows(rows + rank, N, TILE)
                for n in range(N):
                    A = tl.load(A_ptr + (head * N + n) * channels + c, mask=in_block, other=0) * LOG2E
                    B, C = load_pair(BC + n, TILE)
                    decay = tl.exp2(d * A[None, :])
                    entry = decay * tl.load(running + n * BLOCK)[None, :]
                    h = dx * B[:, None] + tl.where(s[:, None] == 0, entry, 0)
                    decay, h = tl.associative_scan((decay, h), 0, _compose)
                    if W_ptr is None:
                        y += h * C[:, None]
                    else:
                        W = tl.load(W_ptr + (head * N + n) * channels + c, mask=in_block, other=0)
                        y += h * C[:, None] * W[None, :]
                    tl.store(running + n * BLOCK, tl.sum(tl.where(s[:, None] == TILE - 1, h, 0), 0))
                tl.store(y_places, y.to(y_ptr.dtype.element_ty), mask=inside[:, None] & in_block[None, :])
                tl.debug_barrier()  # the next tile or walk reads what this one has written
            if slot == chunks - 1:
                n = tl.arange(0, NS)[:, None]
                last = tl.load(running[None, :] + n * BLOCK, mask=n < N)
                last_place = last_ptr + (head_index * channels + c)[None, :] * N + n
                tl.store(last_place, last, mask=(n < N) & in_block[None, :])
            tl.debug_barrier()
