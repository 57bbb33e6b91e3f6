"""Kernels of the backward pass: local pass of the states' gradients and main pass; see README.md."""
from __future__ import annotations

import triton
import triton.language as tl

from mmmamba.ops.triton.kernels_common import (
    LOG2E,
    load_pair,
    pair_rows,
    running_sums,
    sigmoid,
    step_inputs,
    step_sizes,
    sum_rows,
    visit,
)


@triton.jit
def local_gradients(
    grad_y_ptr, projected_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, gradients_ptr, sums_ptr,
    units, chunks, blocks, tiles, positions, height, width, channels, rank,
    N: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, WALKS: tl.constexpr, SPACING: tl.constexpr,
    NARROW: tl.constexpr, SOFTPLUS: tl.constexpr,
):
    """What the outputs of a chunk give to the gradient of its entering states, in the slot of its predecessor.

    The sums of the step sizes of the chunk go there as well.
    """
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
        slot = (chunk if walk == 0 else chunks - 1 - chunk) - 1
        if slot >= 0:
            slot_index = (batch * heads + head) * chunks + slot
            earlier = tl.zeros([BLOCK], tl.float32)
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
                until = (running_sums(d) + earlier[None, :]) * LOG2E
                earlier += tl.sum(d, 0)
                grad_y = tl.load(grad_y_ptr + offsets, mask=mask, other=0).to(tl.float32)
                for n in range(N):
                    A = tl.load(A_ptr + (head * N + n) * channels + c, mask=in_block, other=0)
                    C = tl.load(rows + rank + N + n)
                    place = gradients_ptr + (slot_index * N + n) * channels + c
                    gradient = tl.load(place, mask=in_block & (tile > 0), other=0)
                    gradient += tl.sum(tl.exp2(until * A[None, :]) * (grad_y * C[:, None]), 0)
                    tl.store(place, gradient, mask=in_block)
            tl.store(sums_ptr + slot_index * channels + c, earlier, mask=in_block)


@triton.jit
def _advance(decay_left, before_left, state_left, decay_right, before_right, state_right):
    """Composes steps; ``before`` is the state before the last step's input is added to it."""
    return (
        decay_left * decay_right,
        before_right + decay_right * state_left,
        state_right + decay_right * state_left,
    )


@triton.jit
def _retreat(decay_late, product_late, gradient_late, decay_early, product_early, gradient_early):
    """Composes steps against time.

    A run of steps is the decay of its earliest step, the product of the others' and the gradient of the state after
    its earliest step: so the gradient of a state takes the decay of the *next* step without a shift by one.
    """
    through = product_early * decay_late
    return decay_early, through * product_late, gradient_early + through * gradient_late


@triton.jit
def main(
    grad_y_ptr, x_ptr, projected_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, D_ptr, states_ptr, gradients_ptr,
    scratch_ptr, grad_x_ptr, grad_projected_ptr, grad_delta_ptr, grad_parameters_ptr,
    items, units, chunks, splits, blocks, tiles, positions, height, width, channels, rank, plane, part,
    N: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, WALKS: tl.constexpr, SPACING: tl.constexpr,
    NARROW: tl.constexpr, SOFTPLUS: tl.constexpr,
):
    """All gradients, chunk by chunk, from the states that enter a chunk and the gradients that enter it from behind.

    A program has a unit and ``blocks`` consecutive blocks of channels, and takes every ``workers``-th chunk of all
    batch items. It owns a row of ``grad_parameters`` and a part of ``grad_projected``, shared with nobody else, and
    ``tiles`` slots of ``scratch``: slot 0 for the gradient between two tiles, slot i for the state before tile i.
    """
    program = tl.program_id(0)
    split = program % splits
    unit = program // splits % units
    worker = program // (splits * units)
    workers = tl.num_programs(0) // (splits * units)
    heads = units * WALKS
    x_stride = channels * (units if WALKS == 1 and SPACING == 1 else 1)
    row_length = rank + 2 * N
    parameters = N + 2 + rank
    LANES: tl.constexpr = min(BLOCK, 32)
    LANES_OF_ROW: tl.constexpr = LANES // (2 * TILE)
    s = tl.arange(0, TILE)
    lane = tl.arange(0, LANES)
    scratch = scratch_ptr + program.to(tl.int64) * (tiles * N * BLOCK) + tl.arange(0, BLOCK)
    for item in range(worker, items, workers):
        chunk = item % chunks
        batch = (item // chunks).to(tl.int64)
        x_start = batch * height * width * x_stride + (unit * channels if WALKS == 1 and SPACING == 1 else 0)
        for walk_and_block in range(WALKS * blocks):
            walk = walk_and_block // blocks
            block = walk_and_block % blocks
            c = (split * blocks + block) * BLOCK + tl.arange(0, BLOCK)
            in_block = c < channels
            head = unit + walk * units
            slot = chunk if walk == 0 else chunks - 1 - chunk
            slot_index = (batch * heads + head) * chunks + slot

            # States before the tiles: each from the one before, as in the local pass.
            for tile in range(tiles - 1):
                first = (chunk * tiles + (tile if walk == 0 else tiles - 1 - tile)) * TILE
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
                after = (running_sums(d) - d) * LOG2E
                total = tl.sum(d, 0) * LOG2E
                dx = d * tl.load(x_ptr + offsets, mask=mask, other=0).to(tl.float32)
                from_slot = in_block & (tile == 0) & (slot > 0)
                for n in range(N):
                    A = tl.load(A_ptr + (head * N + n) * channels + c, mask=in_block, other=0)
                    B = tl.load(rows + rank + n)
                    place = scratch + (tile * N + n) * BLOCK
                    state = tl.load(states_ptr + (slot_index * N + n) * channels + c, mask=from_slot, other=0)
                    state += tl.load(place, mask=in_block & (tile > 0), other=0)
                    state *= tl.exp2(total * A)
                    state += tl.sum(tl.exp2(after * A[None, :]) * (dx * B[:, None]), 0)
                    tl.store(place + N * BLOCK, state, mask=in_block)
            tl.debug_barrier()

            parameter_row = (worker * heads + head) * parameters
            parameter_places = grad_parameters_ptr + parameter_row.to(tl.int64) * channels + c
            for back in range(tiles):
                tile = tiles - 1 - back
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
                grad_y = tl.load(grad_y_ptr + offsets, mask=mask, other=0).to(tl.float32)
                dx = d * x

                # Where this lane's sum over channels belongs, see `sum_rows`.
                row = lane // LANES_OF_ROW
                second = row // TILE
                step = row % TILE
                lane_pixels, lane_steps, has_sum = visit(
                    first, step if walk == 0 else TILE - 1 - step, unit, positions, height, width, WALKS, SPACING,
                    NARROW,
                )
                has_sum = has_sum & (lane % LANES_OF_ROW == 0)
                sums = ((batch * height * width + lane_pixels) * heads + head) * row_length
                sums = grad_projected_ptr + split * part + sums

                grad_dx = tl.zeros([TILE, BLOCK], tl.float32)  # of the product of step size and x
                grad_d = tl.zeros([TILE, BLOCK], tl.float32)  # by way of the decays alone
                from_slot = in_block & (tile == 0) & (slot > 0)
                from_behind = in_block & (back == 0)
                BC = pair_rows(rows + rank, N, TILE)
                for n in range(N):
                    A = tl.load(A_ptr + (head * N + n) * channels + c, mask=in_block, other=0)
                    B, C = load_pair(BC + n, TILE)
                    state = tl.load(states_ptr + (slot_index * N + n) * channels + c, mask=from_slot, other=0)
                    state += tl.load(scratch + (tile * N + n) * BLOCK, mask=in_block & (tile > 0), other=0)
                    behind = tl.load(gradients_ptr + (slot_index * N + n) * channels + c, mask=from_behind, other=0)
                    behind += tl.load(scratch + n * BLOCK, mask=in_block & (back > 0), other=0)
                    decay = tl.exp2(d * (A * LOG2E)[None, :])
                    before = tl.where(s[:, None] == 0, decay * state[None, :], 0)
                    _, before, h = tl.associative_scan((decay, before, before + dx * B[:, None]), 0, _advance)
                    g = grad_y * C[:, None] + tl.where(s[:, None] == TILE - 1, behind[None, :], 0)
                    one = tl.full([TILE, BLOCK], 1.0, tl.float32)
                    _, _, g = tl.associative_scan((tl.flip(decay, 0), one, tl.flip(g, 0)), 0, _retreat)
                    g = tl.flip(g, 0)
                    behind = tl.sum(tl.where(s[:, None] == 0, decay * g, 0), 0)
                    tl.store(scratch + n * BLOCK, behind, mask=in_block)
                    grad_dx += g * B[:, None]
                    q = g * before
                    grad_d += q * A[None, :]
                    place = parameter_places + n * channels
                    tl.store(place, tl.load(place, mask=in_block, other=0) + tl.sum(q * d, 0), mask=in_block)
                    total = sum_rows(g * dx, h * grad_y, TILE, BLOCK)
                    place = sums + (rank + n) + second * N
                    total += tl.load(place, mask=has_sum & (block > 0), other=0)
                    tl.store(place, total, mask=has_sum)

                grad_x = grad_dx * d
                if D_ptr is not None:
                    grad_x += grad_y * tl.load(D_ptr + head * channels + c, mask=in_block, other=0)[None, :]
                    place = parameter_places + (N + 1) * channels
                    tl.store(place, tl.load(place, mask=in_block, other=0) + tl.sum(grad_y * x, 0), mask=in_block)
                place = grad_x_ptr + unit * plane + offsets
                if WALKS > 1:
                    grad_x += tl.load(place, mask=mask & (walk > 0), other=0)
                tl.store(place, grad_x.to(grad_x_ptr.dtype.element_ty), mask=mask)

                grad_v = grad_d + grad_dx * x
                if SOFTPLUS:
                    grad_v *= sigmoid(v)
                grad_v = tl.where(steps[:, None] & in_block[None, :], grad_v, 0)
                if bias_ptr is not None:
                    place = parameter_places + N * channels
                    tl.store(place, tl.load(place, mask=in_block, other=0) + tl.sum(grad_v, 0), mask=in_block)
                if delta_ptr is not None:
                    tl.store(grad_delta_ptr + offsets, grad_v.to(grad_delta_ptr.dtype.element_ty), mask=mask)
                else:
                    grad_v = tl.where(inside[:, None], grad_v, 0)
                    for pair in range((rank + 1) // 2):
                        r = 2 * pair
                        weight_places = weight_ptr + (head * channels + c) * rank + r
                        weight = tl.load(weight_places, mask=in_block, other=0)
                        next_weight = tl.load(weight_places + 1, mask=in_block & (r + 1 < rank), other=0)
                        total = sum_rows(grad_v * weight[None, :], grad_v * next_weight[None, :], TILE, BLOCK)
                        place = sums + r + second
                        mask_r = has_sum & (r + second < rank)
                        total += tl.load(place, mask=mask_r & (block > 0), other=0)
                        tl.store(place, total, mask=mask_r)
                    for r in range(rank):
                        place = parameter_places + (N + 2 + r) * channels
                        total = tl.sum(grad_v * tl.load(rows + r)[:, None], 0)
                        tl.store(place, tl.load(place, mask=in_block, other=0) + total, mask=in_block)
                tl.debug_barrier()  # the next tile, walk or block reads what this one has written
