"""Kernel of the backward pass; its local pass and carry are those of the forward pass, reversed. See README.md."""
from __future__ import annotations

import triton
import triton.language as tl

from mmmamba.ops.triton.kernels_common import (
    LOG2E,
    SIZES,
    copy_states,
    load_pair,
    open_tile,
    pair_rows,
    pass_tile,
    running_sums,
    softplus_slope,
    sum_rows,
    visit,
)


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
def _add_to(places, values, mask):
    tl.store(places, tl.load(places, mask=mask, other=0) + values, mask=mask)


@triton.jit
def _add_sums(places, values, has_earlier, mask):
    values += tl.load(places, mask=mask & has_earlier, other=0)
    tl.store(places, values, mask=mask)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=['scratch_ptr'])
def main_pass(
    grad_y_ptr, x_ptr, projected_ptr, delta_ptr, weight_ptr, bias_ptr, A_ptr, D_ptr, W_ptr, orders_ptr, states_ptr,
    gradients_ptr, scratch_ptr, grad_x_ptr, grad_projected_ptr, grad_delta_ptr, grad_parameters_ptr,
    items, chunks_of_worker, first_unit, at_once, units, chunks, splits, blocks, tiles, positions, height, width,
    channels, rank, plane, part,
    N: tl.constexpr, NS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, WALKS: tl.constexpr,
    SPACING: tl.constexpr, NARROW: tl.constexpr, WIDE: tl.constexpr, SOFTPLUS: tl.constexpr,
):
    """All gradients, chunk by chunk, from the states that enter a chunk and the gradients that enter it from its end.

    A program has one of the ``at_once`` units from ``first_unit`` on, ``blocks`` consecutive blocks of channels and
    ``chunks_of_worker`` of the ``items``, the chunks of all batch items. It alone has a row of ``grad_parameters``, a
    part of ``grad_projected`` and ``tiles + 1`` slots of ``scratch``: for the state before each tile, and for the
    gradient between tiles. Units that are looked up add to ``grad_x``.
    """
    heads = units * WALKS
    PADS: tl.constexpr = SPACING > 1 or orders_ptr is not None
    groups = units if WALKS == 1 and not PADS else 1
    row_length = rank + 2 * N
    LANES: tl.constexpr = min(BLOCK, 32)
    s = tl.arange(0, TILE)
    # Which sum over channels a lane has, see `sum_rows`.
    lane = tl.arange(0, LANES)
    row = lane // (LANES // (2 * TILE))
    is_second = row // TILE
    # One loop over chunks, walks, blocks and tiles, whose counter tells the program as well: what is the same in all
    # rounds of a loop would stay in registers throughout.
    tiles_of_chunk = WALKS * blocks * tiles
    tiles_of_program = tiles_of_chunk * chunks_of_worker
    begin = tl.program_id(0) * tiles_of_program
    left = items - tl.program_id(0) // (splits * at_once) * chunks_of_worker
    for work in range(begin, begin + tl.minimum(left, chunks_of_worker) * tiles_of_chunk):
        program = work // tiles_of_program
        split = program % splits
        unit = first_unit + program // splits % at_once
        worker = program // (splits * at_once)
        item = worker * chunks_of_worker + work % tiles_of_program // tiles_of_chunk
        chunk = item % chunks
        batch = (item // chunks).to(tl.int64)
        map_start = batch * (height * width) * (groups * channels)
        walk = work % tiles_of_chunk // (blocks * tiles) if WALKS > 1 else 0
        block = work // tiles % blocks
        back = work % tiles
        starts = scratch_ptr + program.to(tl.int64) * ((tiles + 1) * N * BLOCK) + tl.arange(0, BLOCK)
        tile = tiles - 1 - back
        c = (split * blocks + block) * BLOCK + tl.arange(0, BLOCK)
        in_block = c < channels
        head = unit + walk * units
        A_places = A_ptr + head * N * channels + c
        if back == 0:
            slot = chunk if walk == 0 else chunks - 1 - chunk
            entering = ((batch * heads + head) * chunks + slot) * N * channels + c
            copy_states(states_ptr + entering, starts, channels, BLOCK, in_block & (slot > 0), N, NS)
            copy_states(gradients_ptr + entering, starts + tiles * N * BLOCK, channels, BLOCK, in_block, N, NS)
            tl.debug_barrier()
            for early in range(tiles - 1):
                first = (chunk * tiles + (early if walk == 0 else tiles - 1 - early)) * TILE
                places, rows, steps, inside, d, x = open_tile(
                    x_ptr, projected_ptr, delta_ptr, weight_ptr, bias_ptr, orders_ptr, batch, unit, head, units, first,
                    walk == 0, c, in_block, positions, height, width, channels, rank,
                    N, TILE, BLOCK, WALKS, SPACING, NARROW, WIDE, SOFTPLUS,
                )
                _, sums_before = running_sums(d)
                start = starts + early * N * BLOCK
                pass_tile(
                    start, start + N * BLOCK, BLOCK, early >= 0, in_block, A_places, None, channels, tl.sum(d, 0),
                    sums_before, d * x, rows + rank, N, TILE,
                )
            tl.debug_barrier()

        parameter_rows = N + 2 + rank if W_ptr is None else 2 * N + 2 + rank
        own_row = (worker * at_once * WALKS + head - first_unit).to(tl.int64) * parameter_rows
        parameter_places = grad_parameters_ptr + own_row * channels + c
        first = (chunk * tiles + (tile if walk == 0 else tiles - 1 - tile)) * TILE
        places, rows, steps, inside, d, x = open_tile(
            x_ptr, projected_ptr, delta_ptr, weight_ptr, bias_ptr, orders_ptr, batch, unit, head, units, first,
            walk == 1, c, in_block, positions, height, width, channels, rank,
            N, TILE, BLOCK, WALKS, SPACING, NARROW, WIDE, SOFTPLUS,
        )
        grad_y = tl.load(grad_y_ptr + map_start + places, mask=in_block[None, :], other=0).to(tl.float32)
        grad_y = tl.where(inside[:, None], grad_y, 0)
        i = row % TILE if walk == 0 else TILE - 1 - row % TILE
        pixels, is_step, has_sum = visit(first, i, orders_ptr, unit, positions, height, width, WALKS, SPACING, NARROW)
        has_sum = has_sum & (lane % (LANES // (2 * TILE)) == 0)
        sums = ((batch * (height * width) + pixels) * heads + head) * row_length
        sums = grad_projected_ptr + split.to(tl.int64) * part + sums

        dx = d * x
        grad_dx = tl.zeros([TILE, BLOCK], tl.float32)  # of the product of step size and x
        grad_d = tl.zeros([TILE, BLOCK], tl.float32)  # by way of the decays alone
        BC = pair_rows(rows + rank, N, TILE)
        for n in range(N):
            A = tl.load(A_places + n * channels, mask=in_block, other=0)
            B, C = load_pair(BC + n, TILE)
            decay = tl.exp2(d * (A * LOG2E)[None, :])
            entry = decay * tl.load(starts + (tile * N + n) * BLOCK, mask=in_block, other=0)[None, :]
            before = tl.where(s[:, None] == 0, entry, 0)
            h = before + dx * B[:, None]
            product, before, h = tl.associative_scan((decay, before, h), 0, _advance)
            behind = tl.load(starts + (tiles * N + n) * BLOCK)
            grad_out = grad_y  # of the output's part by this state, but for the factor C
            if W_ptr is not None:
                grad_out *= tl.load(W_ptr + (head * N + n) * channels + c, mask=in_block, other=0)[None, :]
                weight_sums = parameter_places + (N + 2 + rank + n) * channels
                _add_to(weight_sums, tl.sum(h * grad_y * C[:, None], 0), in_block)
            g = grad_out * C[:, None] + tl.where(s[:, None] == TILE - 1, behind[None, :], 0)
            one = tl.full([TILE, BLOCK], 1.0, tl.float32)
            # Flipped, the scan is one of registers; `reverse=True` would flip the lanes as well, and back.
            flipped = (tl.flip(decay, 0), one, tl.flip(g, 0))
            late_decay, product, g = tl.associative_scan(flipped, 0, _retreat)
            g = tl.flip(g, 0)
            tl.store(starts + (tiles * N + n) * BLOCK, tl.sum(tl.where(s[:, None] == 0, decay * g, 0), 0))
            q = g * before
            grad_dx += g * B[:, None]
            grad_d += q * A[None, :]
            _add_to(parameter_places + n * channels, tl.sum(q * d, 0), in_block)
            totals = sum_rows(g * dx, h * grad_out, TILE, BLOCK)
            _add_sums(sums + (rank + n) + is_second * N, totals, block > 0, has_sum)

        # Loaded again rather than kept in registers.
        x = tl.load(x_ptr + map_start + places, mask=in_block[None, :], other=0).to(tl.float32)
        if PADS:
            x = tl.where(inside[:, None], x, 0)
        grad_x = grad_dx * d
        if D_ptr is not None:
            grad_x += grad_y * tl.load(D_ptr + head * channels + c, mask=in_block, other=0)[None, :]
            _add_to(parameter_places + (N + 1) * channels, tl.sum(grad_y * x, 0), in_block)
        grad_x_places = grad_x_ptr + unit.to(tl.int64) * plane + map_start + places
        if orders_ptr is not None:
            grad_x += tl.load(grad_x_places, mask=in_block[None, :], other=0)
        elif WALKS > 1:
            grad_x += tl.load(grad_x_places, mask=in_block[None, :] & (walk > 0), other=0)
        mask = inside[:, None] & in_block[None, :]
        tl.store(grad_x_places, grad_x.to(grad_x_ptr.dtype.element_ty), mask=mask)

        grad_v = grad_d + grad_dx * x
        if SOFTPLUS:
            grad_v *= softplus_slope(d)
        grad_v = tl.where(steps[:, None] & in_block[None, :], grad_v, 0)
        if bias_ptr is not None:
            _add_to(parameter_places + N * channels, tl.sum(grad_v, 0), in_block)
        if delta_ptr is not None:
            tl.store(grad_delta_ptr + map_start + places, grad_v.to(grad_delta_ptr.dtype.element_ty), mask=mask)
        else:
            grad_v = tl.where(inside[:, None], grad_v, 0)
            dt_pairs = BC - rank + tl.arange(0, 2 * TILE) // TILE * (1 - N)  # neighbours rather than N apart
            for r in range(0, rank, 2):
                has_next = r + 1 < rank
                weights = weight_ptr + (head * channels + c) * rank + r
                weight = tl.load(weights, mask=in_block, other=0)
                next_weight = tl.load(weights + 1, mask=in_block & has_next, other=0)
                totals = sum_rows(grad_v * weight[None, :], grad_v * next_weight[None, :], TILE, BLOCK)
                _add_sums(sums + r + is_second, totals, block > 0, has_sum & (r + is_second < rank))
                dt, next_dt = load_pair(dt_pairs + r, TILE)
                weight_sums = parameter_places + (N + 2 + r) * channels
                _add_to(weight_sums, tl.sum(grad_v * dt[:, None], 0), in_block)
                _add_to(weight_sums + channels, tl.sum(grad_v * next_dt[:, None], 0), in_block & has_next)
        tl.debug_barrier()  # the next tile, walk or block reads what this one has written
