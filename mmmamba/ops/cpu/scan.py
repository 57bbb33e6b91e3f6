"""The native scan: forward and backward as functions of channels-last maps. The structures mirror scan.h."""
from __future__ import annotations

from ctypes import Array, Structure, addressof, byref, c_int64, c_void_p
from functools import lru_cache, reduce
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from mmmamba.ops.cpu import native
from mmmamba.ops.cpu.native import TYPES, addresses
from mmmamba.ops.scan.fused import ScanInputs, register, token_counts
from mmmamba.ops.scan.orders import scan_order

# Steps between two states that the forward pass keeps for the backward pass.
CHUNK = 64
# The kept states' channels are padded to a multiple of the widest vector.
WIDEST = 16
# What the first pass over segments costs in addition to the pass itself, forward and backward.
FORWARD_ENDS, BACKWARD_ENDS = 0.8, 0.3
_NO_MEMORY = 'The native scan could not allocate its workspace.'


class Order(Structure):
    """ScanOrder of scan.h."""

    _fields_ = [('pixels', c_void_p), ('steps', c_int64)]


class Problem(Structure):
    """ScanProblem of scan.h."""

    _fields_ = [
        *((name, c_int64) for name in ('batch', 'groups', 'directions', 'channels', 'states', 'rank')),
        *((name, c_int64) for name in ('pixels', 'chunk', 'steps')),
        *((name, c_int64) for name in ('softplus', 'overlap', 'covered', 'x_type', 'delta_type')),
        *((name, c_void_p) for name in ('orders', 'x', 'projected', 'delta', 'dt_weight', 'bias', 'A', 'D', 'W')),
    ]


class Outputs(Structure):
    """ScanOutputs of scan.h."""

    _fields_ = [
        *((name, c_void_p) for name in ('y', 'sum', 'last_state', 'chunk_states', 'ends')),
        *((name, c_int64) for name in ('parts', 'segments')),
    ]


class Gradients(Structure):
    """ScanGradients of scan.h."""

    _fields_ = [
        *((name, c_void_p) for name in ('y', 'last_state', 'chunk_states', 'ends')),
        *((name, c_void_p) for name in ('x', 'delta', 'projected', 'dt_weight', 'bias', 'A', 'D', 'W')),
        *((name, c_int64) for name in ('copies', 'segments')),
    ]


def forward(inputs: ScanInputs, keep: bool, isa: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Scans every batch item, head and channel: a head is a direction of a map, or a group of a sequence's channels.

    Args:
        inputs: Of the scan, all contiguous.
        keep: Whether :func:`backward` will follow.
        isa: Instruction set by name; None for the best.

    Returns:
        The sum over the directions, as ``x``; the last states (batch, heads, channels, N); and what the backward pass
        needs, empty unless ``keep``.
    """
    x, A = inputs.x, inputs.A
    visits = _visits(tuple(inputs.directions), x.shape[1], inputs.width)
    problem = _problem(inputs, visits)
    batch, heads, channels, states = x.shape[0], *A.shape
    chunks, padded = -(-problem.steps // CHUNK), -(-channels // WIDEST) * WIDEST
    turns = problem.directions if problem.overlap else 1
    index, threads = native.isa_index(isa), native.threads()
    lanes = native.NATIVE.library.scan_lanes(index)
    blocks = -(-channels // lanes)
    parts, _, segments = _split(batch * heads // turns, turns, blocks, (1,), visits.cuts, FORWARD_ENDS, threads)
    y = torch.empty_like(x)
    total = y
    if x.dtype != torch.float32 and not (visits.covered and turns == 1):
        total = torch.empty_like(x, dtype=torch.float32)
    if not visits.covered:
        total.zero_()
    last_state = A.new_empty(batch, heads, channels, states)
    kept = A.new_empty(batch * heads * chunks * states * padded if keep else 0)
    if keep and visits.uneven:  # an output has no undefined elements: chunks that some directions do not have
        kept.zero_()
    elif keep:  # and lanes that no vector reaches
        kept.view(batch * heads * chunks * states, padded)[:, blocks * lanes:] = 0
    ends = A.new_empty(batch, heads, segments, states + 1, padded) if segments > 1 else None
    arrays = addresses((last_state, kept if keep else None, ends))
    outputs = Outputs(*addresses((y,), x.dtype), *addresses((total,), total.dtype), *arrays, parts, segments)
    if native.NATIVE.library.scan_forward(byref(problem), byref(outputs), index, threads):
        raise MemoryError(_NO_MEMORY)
    if total is not y and not visits.covered:
        y.copy_(total)
    return y, last_state, kept


def backward(
    inputs: ScanInputs, states: Tensor, grad_y: Tensor, grad_last_state: Tensor | None, isa: str | None = None
) -> tuple[Tensor, ...]:
    """Returns the gradients of x, projected, delta, dt_weight, bias, A, D and W, each in its dtype; empty for None.

    Args:
        inputs: Of :func:`forward`.
        states: The third result of :func:`forward`.
        grad_y: Gradient of y, contiguous.
        grad_last_state: Gradient of the last states, or None.
        isa: Instruction set by name; None for the best.
    """
    x, projected, delta, A, W = inputs.x, inputs.projected, inputs.delta, inputs.A, inputs.W
    visits = _visits(tuple(inputs.directions), x.shape[1], inputs.width)
    problem = _problem(inputs, visits)
    batch, heads, channels, _ = x.shape[0], *A.shape
    padded = -(-channels // WIDEST) * WIDEST
    turns = problem.directions if problem.overlap else 1
    index, threads = native.isa_index(isa), native.threads()
    # Directions that visit the same pixels add to the gradient of x one after the other, or to two copies of it. All
    # channels of a pixel add to the gradient of its projection, so they stay together.
    options = (1, 2) if problem.overlap and turns % 2 == 0 else (1,)
    _, copies, segments = _split(batch * heads // turns, turns, 1, options, visits.cuts, BACKWARD_ENDS, threads)
    allocate = x.new_empty if visits.covered else x.new_zeros
    grad_x = allocate(copies, *x.shape, dtype=torch.float32)
    grad_projected = torch.zeros_like(projected) if visits.partial else torch.empty_like(projected)
    grad_delta = None if delta is None else allocate(*grad_x.shape, dtype=torch.float32)
    shape = (batch, segments, heads, channels)
    parameters = [A.new_empty(*shape, *columns) for columns in ((problem.rank,), (), (problem.states,), ())]
    grad_W = None if W is None else A.new_empty(*shape, problem.states)
    ends = A.new_empty(batch, heads, segments, A.shape[2] + 1, padded) if segments > 1 else None
    arrays = addresses((grad_last_state, states, ends, grad_x, grad_delta, grad_projected, *parameters, grad_W))
    gradients = Gradients(*addresses((grad_y,), x.dtype), *arrays, copies, segments)
    if native.NATIVE.library.scan_backward(byref(problem), byref(gradients), index, threads):
        raise MemoryError(_NO_MEMORY)
    grad_dt_weight, grad_bias, grad_A, grad_D = [part.sum((0, 1)) for part in parameters]
    return (
        _sum(grad_x, x.dtype),
        grad_projected,
        x.new_empty(0) if grad_delta is None else _sum(grad_delta, delta.dtype),
        x.new_empty(0) if inputs.dt_weight is None else grad_dt_weight,
        x.new_empty(0) if inputs.bias is None else grad_bias,
        grad_A,
        x.new_empty(0) if inputs.D is None else grad_D,
        x.new_empty(0) if grad_W is None else grad_W.sum((0, 1)),
    )


def states_size(inputs: ScanInputs) -> int:
    """Returns how many numbers the states are that :func:`forward` keeps."""
    heads, channels, states = inputs.A.shape
    steps = reduce(torch.sym_max, token_counts(inputs.directions, inputs.x.shape[1], inputs.width))
    chunks = -(-steps // CHUNK)
    return inputs.x.shape[0] * heads * chunks * states * -(-channels // WIDEST) * WIDEST


def _sum(copies: Tensor, dtype: torch.dtype) -> Tensor:
    return (copies[0] if copies.shape[0] == 1 else copies.sum(0)).to(dtype)


class _Visits(NamedTuple):
    """Which pixels the directions of a scan visit."""

    orders: Array[Order]  # whose memory is that of ``kept_alive``
    kept_alive: list[Tensor]
    steps: int  # of the longest order
    cuts: int  # chunks of the shortest order: with more segments, some would have no step
    uneven: bool  # not all orders are as long
    overlap: bool  # several directions visit the same pixels
    covered: bool  # every direction visits all pixels or, without overlap, all of them do
    partial: bool  # a direction leaves out pixels


@lru_cache(maxsize=64)
def _visits(directions: tuple[str, ...], pixels: int, width: int) -> _Visits:
    height = pixels // max(width, 1)
    if height * width != pixels:
        raise ValueError(f'A map of {pixels} pixels has no rows of {width}.')
    if pixels >= 2**31:
        raise ValueError(f'The native scan takes fewer than 2^31 pixels, not {pixels}.')
    orders = [_order(direction, height, width) for direction in directions]
    steps = [len(order) for order in orders]
    visited = [int((order < pixels).sum()) for order in orders]
    visits = torch.cat(orders).bincount(minlength=pixels + 1)[:pixels]  # of each pixel
    overlap = bool((visits > 1).any())
    return _Visits(
        orders=(Order * len(orders))(*map(Order, addresses(orders, torch.int32), steps)),
        kept_alive=orders,
        steps=max(steps),
        cuts=-(-min(steps) // CHUNK),
        uneven=min(steps) < max(steps),
        overlap=overlap,
        covered=min(visited) == pixels if overlap else sum(visited) == pixels,
        partial=min(visited) < pixels,
    )


@lru_cache(maxsize=64)
def _order(direction: str, height: int, width: int) -> Tensor:
    """Returns which pixel each step visits (steps,), int32; the index height·width is a padded pixel."""
    with torch.inference_mode(False):  # a kept tensor must serve training too
        return scan_order(direction, height, width, torch.device('cpu')).to(torch.int32).contiguous()


def _problem(inputs: ScanInputs, visits: _Visits) -> Problem:
    x, projected, delta, dt_weight, bias, A, D, W, directions, _, softplus = inputs
    heads, channels, states = A.shape
    groups = heads // len(directions)
    sizes = (x.shape[0], groups, len(directions), channels, states, projected.shape[3] - 2 * states)
    delta_dtype = (x if delta is None else delta).dtype
    for dtype in (x.dtype, delta_dtype):
        if dtype not in TYPES:
            raise ValueError(f'The native scan does not take {dtype}.')
    projected_at, *parameters_at = addresses((projected, dt_weight, bias, A, D, W))
    return Problem(
        *sizes, x.shape[1], CHUNK, visits.steps, softplus, visits.overlap, visits.covered, TYPES[x.dtype],
        TYPES[delta_dtype], addressof(visits.orders), *addresses((x,), x.dtype), projected_at,
        *addresses((delta,), delta_dtype), *parameters_at,
    )


@lru_cache(maxsize=256)
def _split(
    sequences: int, turns: int, blocks: int, copies: tuple[int, ...], chunks: int, ends: float, threads: int
) -> tuple[int, int, int]:
    """Cuts the work so that all threads finish early: the (parts, copies, segments) of scan.h.

    ``sequences`` can be worked on at once, and that ``turns`` times; each has ``blocks`` by ``chunks`` pieces of work.
    With more than one segment each, all but one of them pass a first time, at ``ends`` times the cost.
    """
    busy = 2 * threads if threads > 1 else 1  # a few more items than threads make up for one that is held up

    def cost(split: tuple[int, int, int]) -> tuple[float, ...]:
        segments, parts, copies = split
        item = -(-blocks // parts) * -(-chunks // segments)
        rounds = turns // copies * -(-sequences * parts * copies * segments // threads)
        time = item * (rounds + ends * -(-sequences * turns * parts * (segments - 1) // threads))
        return time, segments, -min(sequences * parts, busy)

    most_parts, most_segments = (max(1, min(count, 2 * threads)) for count in (blocks, chunks))
    segments, parts, count = min(product(range(1, most_segments + 1), range(1, most_parts + 1), copies), key=cost)
    return parts, count, segments


native_scan = register('native_scan', forward, backward, states_size)
