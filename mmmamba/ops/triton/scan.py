"""Forward and backward pass of the fused scan in Triton, and whether it can run here."""
from __future__ import annotations

import math
import os
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from mmmamba.ops.scan.fused import ScanInputs, register
from mmmamba.ops.triton.geometry import Geometry, geometry, order_table
from mmmamba.ops.triton.tiling import Tiling, choose_tiling, largest_scratch

OLDEST = (3, 6)  # Triton that the kernels were compiled or made for
# Finite after the product with log2 e, so that a step of size zero, as padding is, leaves a state as it is.
LARGEST_A = torch.finfo(torch.float32).max / 2


def _reason() -> str | None:
    if find_spec('triton') is None:
        return 'Triton is not installed.'
    with suppress(PackageNotFoundError):  # some builds go by another name, and these are recent
        if tuple(map(int, version('triton').split('.')[:2])) < OLDEST:
            return f'The kernels need Triton {OLDEST[0]}.{OLDEST[1]} or later, and this is {version("triton")}.'
    if torch.version.hip is not None:
        return 'The kernels are made for warps of 32 threads, which AMD GPUs do not all have.'
    return None


# Found at import, because torch.compile traces what a backend is asked. Triton reads its variable just so.
INTERPRETED = os.environ.get('TRITON_INTERPRET', '').lower() in ('1', 'true', 'yes', 'on', 'y')
REASON = _reason()
DEVICES = ('cpu',) if INTERPRETED else ('cuda',)


def unavailable() -> str | None:
    """Returns why the kernels cannot run here, or None if they can."""
    return REASON


def forward(inputs: ScanInputs, keep: bool, tiling: Tiling | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Runs one selective scan for every batch item, head and channel.

    Args:
        inputs: Of the scan, all contiguous.
        keep: Whether the backward pass will follow.
        tiling: How to cut the scan; None to choose by the shape.

    Returns:
        y, shaped and typed as x; the last states (batch, heads, channels, N) float32; and, flat, the entering states
        of all chunks (batch, heads, chunks, N, channels) float32, or an empty tensor unless ``keep``.
    """
    from mmmamba.ops.triton import kernels_forward

    x, projected, delta, dt_weight, bias, A, D, W, _, _, softplus = inputs
    g = geometry(inputs)
    orders = _orders(inputs, g)
    y = torch.empty_like(x)
    last_state = x.new_empty((g.batch, g.heads, g.channels, g.states), dtype=torch.float32)
    if not x.numel():
        return y, last_state.zero_(), last_state.new_empty(0)
    tiling = tiling or choose_tiling(g, _multiprocessors(x.device), keep)
    chunks = -(-g.positions // tiling.chunk)
    blocks = -(-g.channels // tiling.block)
    A, W = _by_state(A, LARGEST_A), _by_state(W)
    states = x.new_empty((g.batch, g.heads, chunks, g.states, g.channels), dtype=torch.float32)
    with torch.cuda.device_of(x):
        if chunks > 1:
            _carry_states(
                x, projected, delta, dt_weight, bias, A, W, orders, states, None, g, tiling, softplus, reverse=False,
            )  # fmt: skip
        items = g.batch * g.at_once * chunks * blocks
        programs = min(items, 4 * tiling.programs)  # more than are resident: they end at different times
        scratch = x.new_empty((programs, g.states, tiling.block), dtype=torch.float32)
        planes = _planes(y, g)
        for first_unit in range(0, g.units, g.at_once):
            _launch(
                kernels_forward.final_pass, programs,
                x, projected, delta, dt_weight, bias, A, D, W, orders, states, scratch, planes, last_state,
                items, first_unit, g.at_once, g.units, chunks, blocks, tiling.chunk // tiling.tile, *_map(g),
                x.numel() * (g.planes > 1),
                NS=_power_of_two(g.states), maxnreg=168, **_constants(g, tiling, softplus),
            )  # fmt: skip
        _merge(planes, y, g)
    if not keep:
        return y, last_state, states.new_empty(0)
    states[:, :, 0] = 0  # which no kernel reads, but an output has no undefined elements
    return y, last_state, states.flatten()


def backward(
    inputs: ScanInputs, states: Tensor, grad_y: Tensor, grad_last_state: Tensor | None, tiling: Tiling | None = None
) -> tuple[Tensor, ...]:
    """Returns the gradients of x, projected, delta, dt_weight, bias, A, D and W, each in its dtype; empty for None.

    Args:
        inputs: Of :func:`forward`.
        states: The third result of :func:`forward`.
        grad_y: Gradient of y, contiguous.
        grad_last_state: Gradient of the last states, contiguous, or None.
        tiling: That of :func:`forward`.
    """
    from mmmamba.ops.triton import kernels_backward

    x, projected, delta, dt_weight, bias, A, D, W, _, _, softplus = inputs
    g = geometry(inputs)
    orders = _orders(inputs, g)
    if not x.numel():
        tensors = (x, projected, delta, dt_weight, bias, A, D, W)
        return tuple(x.new_empty(0) if tensor is None else torch.zeros_like(tensor) for tensor in tensors)
    tiling = tiling or choose_tiling(g, _multiprocessors(x.device), keep=True)
    chunks = -(-g.positions // tiling.chunk)
    splits = min(tiling.splits, -(-g.channels // tiling.block))
    blocks = -(-g.channels // (tiling.block * splits))  # of a split
    splits = -(-g.channels // (tiling.block * blocks))  # that have any
    tiles = tiling.chunk // tiling.tile
    A, W = _by_state(A, LARGEST_A), _by_state(W)
    if grad_last_state is None:
        grad_last_state = x.new_zeros((g.batch, g.heads, g.channels, g.states), dtype=torch.float32)
    with torch.cuda.device_of(x):
        states = states.view(g.batch, g.heads, chunks, g.states, g.channels)
        gradients = torch.empty_like(states)
        _carry_states(
            grad_y, projected, delta, dt_weight, bias, A, W, orders, gradients, grad_last_state, g, tiling,
            softplus, reverse=True,
        )  # fmt: skip
        items = g.batch * chunks
        rows = (g.states, 1, 1, g.rank, 0 if W is None else g.states)
        heads_at_once = g.at_once * g.walks
        most_workers = min(tiling.programs // (g.at_once * splits),
                           largest_scratch(g) // (heads_at_once * sum(rows) * g.channels))
        chunks_of_worker = -(-items // max(most_workers, 1))
        workers = -(-items // chunks_of_worker)
        programs = workers * g.at_once * splits
        scratch = x.new_empty((programs, tiles + 1, g.states, tiling.block), dtype=torch.float32)
        grad_x = torch.empty_like(x)
        planes = _planes(grad_x, g)
        allocate = projected.new_zeros if g.pads else projected.new_empty
        grad_projected = allocate((splits, *projected.shape))
        grad_delta = None if delta is None else torch.empty_like(delta)
        parameters = x.new_empty((g.heads, sum(rows), g.channels), dtype=torch.float32)
        for first_unit in range(0, g.units, g.at_once):
            of_workers = x.new_zeros((workers, heads_at_once, *parameters.shape[1:]), dtype=torch.float32)
            _launch(
                kernels_backward.main_pass, programs,
                grad_y, x, projected, delta, dt_weight, bias, A, D, W, orders, states, gradients,
                scratch, planes, grad_projected, grad_delta, of_workers,
                items, chunks_of_worker, first_unit, g.at_once, g.units, chunks, splits, blocks, tiles, *_map(g),
                x.numel() * (g.planes > 1), projected.numel(),
                NS=_power_of_two(g.states), **_constants(g, tiling, softplus),
            )  # fmt: skip
            torch.sum(of_workers, 0, out=parameters.narrow(0, first_unit, heads_at_once))
        _merge(planes, grad_x, g)
        grad_projected = grad_projected[0] if splits == 1 else grad_projected.sum(0)
    grad_A, grad_bias, grad_D, grad_weight, grad_W = parameters.split(rows, 1)
    dense = torch.contiguous_format  # and a copy of its own: no result shares memory with another
    return (
        grad_x,
        grad_projected,
        x.new_empty(0) if delta is None else grad_delta,
        x.new_empty(0) if dt_weight is None else grad_weight.transpose(1, 2).clone(memory_format=dense),
        x.new_empty(0) if bias is None else grad_bias[:, 0].clone(memory_format=dense),
        grad_A.transpose(1, 2).clone(memory_format=dense),
        x.new_empty(0) if D is None else grad_D[:, 0].clone(memory_format=dense),
        x.new_empty(0) if W is None else grad_W.transpose(1, 2).clone(memory_format=dense),
    )


def states_size(inputs: ScanInputs) -> int | torch.SymInt:
    """Returns how many numbers the states are that :func:`forward` keeps; a new unknown if sizes are not known yet."""
    if any(isinstance(size, torch.SymInt) for size in (*inputs.x.shape, *inputs.A.shape, inputs.width)):
        return torch.library.get_ctx().new_dynamic_size()  # their tiling depends on all of them
    if not inputs.x.numel():
        return 0
    g = geometry(inputs)
    chunks = -(-g.positions // choose_tiling(g, _multiprocessors(inputs.x.device), keep=True).chunk)
    return g.batch * g.heads * chunks * g.states * g.channels


def _carry_states(
    inputs: Tensor,
    projected: Tensor,
    delta: Tensor | None,
    dt_weight: Tensor | None,
    bias: Tensor | None,
    A: Tensor,
    W: Tensor | None,
    orders: Tensor | None,
    states: Tensor,
    initial: Tensor | None,
    g: Geometry,
    tiling: Tiling,
    softplus: bool,
    reverse: bool,
) -> None:
    """Fills ``states`` with what enters each chunk: the states, or reversed the gradients of its end states."""
    from mmmamba.ops.triton import kernels_forward

    chunks = states.shape[2]
    blocks = -(-g.channels // tiling.block)
    sums = states.new_empty((g.batch, g.heads, chunks, g.channels))
    if chunks > 1:
        _launch(
            kernels_forward.local_pass, g.batch * g.units * chunks * blocks,
            inputs, projected, delta, dt_weight, bias, A, W, orders, states, sums,
            g.units, chunks, blocks, tiling.chunk // tiling.tile, *_map(g),
            REVERSE=reverse, maxnreg=168, **_constants(g, tiling, softplus),
        )  # fmt: skip
    _launch(
        kernels_forward.carry, g.batch * g.heads * g.states * blocks,
        states, sums, A, initial, g.heads, chunks, blocks, g.channels,
        N=g.states, ROWS=tiling.carry_rows, BLOCK=tiling.block, REVERSE=reverse,
    )  # fmt: skip


def _by_state(matrix: Tensor | None, limit: float = math.inf) -> Tensor | None:
    """Returns a matrix (heads, N, channels), of which one load takes the channels of a block; within limits."""
    if matrix is None:
        return None
    heads, channels, states = matrix.shape
    return torch.clamp(matrix.transpose(1, 2), -limit, limit, out=matrix.new_empty(heads, states, channels))


def _planes(total: Tensor, g: Geometry) -> Tensor:
    """Returns where the units write what adds up to ``total``: itself if no two of them write the same element.

    Units that take turns add to zeros in float32, so that no number is rounded twice.
    """
    if g.looked_up:
        return total.zero_() if total.dtype == torch.float32 else torch.zeros_like(total, dtype=torch.float32)
    return total if g.planes == 1 else total.new_empty((g.planes, *total.shape), dtype=torch.float32)


def _merge(planes: Tensor, total: Tensor, g: Geometry) -> None:
    if g.planes > 1:
        torch.add(planes[0], planes[1], out=total)
    elif planes is not total:
        total.copy_(planes)


def _orders(inputs: ScanInputs, g: Geometry) -> Tensor | None:
    """Returns the table in which the kernels look pixels up, or None if they compute them."""
    if not g.looked_up:
        return None
    # What a CUDA graph records has no values before the graph runs: it makes a table of its own.
    recorded = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    make = order_table.__wrapped__ if recorded else order_table
    return make(tuple(inputs.directions), g.height, g.width, inputs.x.device)


def _map(g: Geometry) -> tuple[int, ...]:
    return g.positions, g.height, g.width, g.channels, g.rank


def _constants(g: Geometry, tiling: Tiling, softplus: bool) -> dict[str, Any]:
    return {
        'N': g.states,
        'TILE': tiling.tile,
        'BLOCK': tiling.block,
        'WALKS': g.walks,
        'SPACING': g.spacing,
        'NARROW': g.shortest_line < tiling.tile,
        'WIDE': g.wide,
        'SOFTPLUS': softplus,
    }


def _launch(kernel: Any, programs: int, *arguments: Any, **constants: Any) -> None:
    # A program is one warp: then a tile's columns are threads, and no scan or sum over time leaves a thread.
    kernel[(programs,)](*arguments, **constants, num_warps=1, num_stages=1)


def _power_of_two(n: int) -> int:
    """Returns the smallest power of two that is at least n."""
    return 1 << (n - 1).bit_length()


@lru_cache
def _multiprocessors(device: torch.device) -> int:
    # Without a GPU (the interpreter, shapes alone), as if on an H100 or H200.
    known = device.type == 'cuda' and torch.cuda.is_available()
    return torch.cuda.get_device_properties(device).multi_processor_count if known else 132


triton_scan = register('triton_scan', forward, backward, states_size)
