"""The native scan: forward and backward as plain functions of channels-last maps."""
from __future__ import annotations

from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from mmmamba.ops.cpu import native
from mmmamba.ops.orders import scan_orders, token_count

# Steps between two states that the forward pass keeps for the backward pass.
CHUNK = 64
# The kept states' channels are padded to a multiple of the widest vector.
WIDEST = 16
# What the first pass over segments costs beside the pass itself, forward and backward.
FORWARD_ENDS, BACKWARD_ENDS = 0.8, 0.3


def forward(
    x: Tensor,
    projected: Tensor,
    delta: Tensor | None,
    dt_weight: Tensor | None,
    bias: Tensor | None,
    A: Tensor,
    D: Tensor | None,
    W: Tensor | None,
    pattern: str,
    width: int,
    softplus: bool,
    keep: bool,
    isa: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scans every batch item, head and channel: a head is a direction of a map, or a group of a sequence's channels.

    Args:
        x: (batch, pixels, groups * channels), contiguous; float32, float16 or bfloat16.
        projected: (batch, pixels, heads, R + 2 N): dt, B and C of every pixel and head. Contiguous and float32, as all
            that follow, but for ``delta``.
        delta: Step sizes shaped as ``x``, in one of its dtypes; None for ``dt_weight`` times dt.
        dt_weight: (heads, channels, R); None with ``delta``.
        bias: Added to the step sizes (heads, channels), or None.
        A: (heads, channels, N).
        D: Skip weights (heads, channels), or None.
        W: Weights of the states in the output (heads, channels, N), or None for ones.
        pattern: 'sequence', 'cross' or 'atrous'.
        width: Of the map; that of a sequence is its length.
        softplus: Whether step sizes go through softplus.
        keep: Whether :func:`backward` will follow.
        isa: Instruction set by name; None for the best.

    Returns:
        The sum over the directions, as ``x``; the last states (batch, heads, channels, N); and what the backward pass
        needs, empty unless ``keep``.
    """
    order = _order(pattern, x.shape[1], width)
    problem = _problem(x, projected, delta, dt_weight, bias, A, D, W, order, pattern, softplus)
    batch, heads, channels, states = x.shape[0], *A.shape
    chunks, padded = -(-problem.tokens // CHUNK), -(-channels // WIDEST) * WIDEST
    turns = problem.directions if problem.overlap else 1
    blocks = -(-channels // native.lanes(isa))
    parts, _, segments = _split(batch * heads // turns, turns, blocks, (1,), chunks, FORWARD_ENDS, native.threads())
    y = torch.empty_like(x)
    total = y if x.dtype == torch.float32 or turns == 1 else torch.empty_like(x, dtype=torch.float32)
    last_state = A.new_empty(batch, heads, channels, states)
    chunk_states = A.new_empty(states_size(x, projected, A, pattern, width) if keep else 0)
    if keep:  # lanes that no vector reaches, since an output has no undefined elements
        chunk_states.view(batch * heads * chunks * states, padded)[:, blocks * native.lanes(isa):] = 0
    ends = A.new_empty(batch, heads, segments, states + 1, padded) if segments > 1 else None
    maps = (native.address(y, x.dtype), native.address(total, total.dtype))
    arrays = map(native.address, (last_state, chunk_states if keep else None, ends))
    native.forward(problem, native.Outputs(*maps, *arrays, parts, segments), isa)
    return y, last_state, chunk_states


def backward(
    grad_y: Tensor,
    grad_last_state: Tensor | None,
    x: Tensor,
    projected: Tensor,
    delta: Tensor | None,
    dt_weight: Tensor | None,
    bias: Tensor | None,
    A: Tensor,
    D: Tensor | None,
    W: Tensor | None,
    states: Tensor,
    pattern: str,
    width: int,
    softplus: bool,
    isa: str | None = None,
) -> tuple[Tensor, ...]:
    """Returns the gradients of x, projected, delta, dt_weight, bias, A, D and W, each in its dtype; empty for None.

    Args:
        grad_y: Gradient of y, contiguous.
        grad_last_state: Gradient of the last states, or None.
        states: The third result of :func:`forward`.

    The others are those of :func:`forward`.
    """
    order = _order(pattern, x.shape[1], width)
    problem = _problem(x, projected, delta, dt_weight, bias, A, D, W, order, pattern, softplus)
    batch, heads, channels, _ = x.shape[0], *A.shape
    chunks, padded = -(-problem.tokens // CHUNK), -(-channels // WIDEST) * WIDEST
    turns = problem.directions if problem.overlap else 1
    # Directions that visit the same pixels add to the gradient of x one after the other, or to two copies of it. All
    # channels of a pixel add to the gradient of its projection, so they stay together.
    options = (1, 2) if problem.overlap else (1,)
    _, copies, segments = _split(batch * heads // turns, turns, 1, options, chunks, BACKWARD_ENDS, native.threads())
    grad_x = x.new_empty(copies, *x.shape, dtype=torch.float32)
    # A direction of 'atrous' leaves out the pixels of the others.
    grad_projected = torch.zeros_like(projected) if pattern == 'atrous' else torch.empty_like(projected)
    grad_delta = None if delta is None else torch.empty_like(grad_x)
    shape = (batch, segments, heads, channels)
    parameters = [A.new_empty(*shape, *columns) for columns in ((problem.rank,), (), (problem.states,), ())]
    grad_W = None if W is None else A.new_empty(*shape, problem.states)
    ends = A.new_empty(batch, heads, segments, A.shape[2] + 1, padded) if segments > 1 else None
    arrays = map(
        native.address, (grad_last_state, states, ends, grad_x, grad_delta, grad_projected, *parameters, grad_W)
    )
    native.backward(problem, native.Gradients(native.address(grad_y, x.dtype), *arrays, copies, segments), isa)
    grad_dt_weight, grad_bias, grad_A, grad_D = (part.sum((0, 1)) for part in parameters)
    return (
        _sum(grad_x, x.dtype),
        grad_projected,
        A.new_empty(0) if grad_delta is None else _sum(grad_delta, delta.dtype),
        A.new_empty(0) if dt_weight is None else grad_dt_weight,
        A.new_empty(0) if bias is None else grad_bias,
        grad_A,
        A.new_empty(0) if D is None else grad_D,
        A.new_empty(0) if grad_W is None else grad_W.sum((0, 1)),
    )


def _sum(copies: Tensor, dtype: torch.dtype) -> Tensor:
    return (copies[0] if len(copies) == 1 else copies.sum(0)).to(dtype)


def states_size(x: Tensor, projected: Tensor, A: Tensor, pattern: str, width: int) -> int:
    """Returns how many numbers the states are that :func:`forward` keeps."""
    heads, channels, states = A.shape
    chunks = -(-token_count(pattern, x.shape[1], width) // CHUNK)
    return x.shape[0] * heads * chunks * states * -(-channels // WIDEST) * WIDEST


@lru_cache(maxsize=16)
def _order(pattern: str, pixels: int, width: int) -> Tensor:
    """Which pixel each step visits (directions, tokens), int32; the index ``pixels`` is a padded pixel."""
    height = pixels // max(width, 1)
    if height * width != pixels:
        raise ValueError(f'A map of {pixels} pixels has no rows of {width}.')
    if pixels >= 2**31:
        raise ValueError(f'The native scan takes fewer than 2^31 pixels, not {pixels}.')
    with torch.inference_mode(False):  # a kept tensor must serve training too
        return scan_orders(pattern, height, width, torch.device('cpu')).to(torch.int32).contiguous()


def _problem(
    x: Tensor,
    projected: Tensor,
    delta: Tensor | None,
    dt_weight: Tensor | None,
    bias: Tensor | None,
    A: Tensor,
    D: Tensor | None,
    W: Tensor | None,
    order: Tensor,
    pattern: str,
    softplus: bool,
) -> native.Problem:
    heads, channels, states = A.shape
    directions, tokens = order.shape
    sizes = (x.shape[0], heads // directions, directions, channels, states, projected.shape[3] - 2 * states)
    delta_dtype = (x if delta is None else delta).dtype
    types = map(_type, (x.dtype, delta_dtype))
    arrays = (
        native.address(order, torch.int32), native.address(x, x.dtype), native.address(projected),
        native.address(delta, delta_dtype), *map(native.address, (dt_weight, bias, A, D, W)),
    )
    return native.Problem(*sizes, x.shape[1], tokens, CHUNK, softplus, pattern == 'cross', *types, *arrays)


def _type(dtype: torch.dtype) -> int:
    if dtype not in native.TYPES:
        raise ValueError(f'The native scan does not take {dtype}.')
    return native.TYPES[dtype]


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
