"""The native scan as a differentiable function of channels-last tensors; both ops reduce to it."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmmamba.ops.cpu import native
from mmmamba.ops.dispatch import refuse_second_derivative

# Steps between two states that the forward pass keeps for the backward pass.
CHUNK = 64
# The kept states' channels are padded to a multiple of the widest vector.
WIDEST = 16


def native_scan(
    x: Tensor,
    projected: Tensor,
    delta: Tensor | None,
    dt_weight: Tensor | None,
    bias: Tensor | None,
    A: Tensor,
    D: Tensor | None,
    order: Tensor,
    softplus: bool,
    isa: str | None,
) -> tuple[Tensor, Tensor]:
    """Scans float32 tensors; heads are the groups of channels, or the directions if there are several.

    Args:
        x: (batch, pixels, groups * channels).
        projected: (batch, pixels, heads, R + 2 N): dt, B and C of every pixel and head.
        delta: Step sizes shaped as ``x``; None for ``dt_weight`` times dt.
        dt_weight: (heads, channels, R); None with ``delta``.
        bias: Added to the step sizes (heads, channels), or None.
        A: (heads, channels, N).
        D: Skip weights (heads, channels), or None.
        order: Which pixel each step visits (directions, tokens), int32; the index ``pixels`` is a padded pixel.
        softplus: Whether step sizes go through softplus.
        isa: Instruction set by name; None for the best.

    Returns:
        The sum over the directions, shaped as ``x``, and the last states (batch, heads, channels, N).
    """
    tensors = (x, projected, delta, dt_weight, bias, A, D)
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return _NativeScan.apply(*tensors, order, softplus, isa, keep)


class _NativeScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *tensors, order, softplus, isa, keep = arguments
        tensors = [None if tensor is None else tensor.contiguous() for tensor in tensors]
        problem = _problem(tensors, order, softplus)
        x, projected, _, _, _, A, _ = tensors
        batch, heads = x.shape[0], projected.shape[2]
        y = torch.zeros_like(x)
        last_state = x.new_empty(batch, heads, problem.channels, problem.states)
        chunk_states = None
        if keep:
            chunks, padded = -(-problem.tokens // CHUNK), -(-problem.channels // WIDEST) * WIDEST
            chunk_states = x.new_empty(batch, heads, chunks, problem.states, padded)
        native.forward(problem, native.Outputs(*map(native.address, (y, last_state, chunk_states))), isa)
        ctx.save_for_backward(*tensors, order, chunk_states)
        ctx.softplus, ctx.isa = softplus, isa
        ctx.set_materialize_grads(False)
        return y, last_state

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, grad_last_state: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        *tensors, order, chunk_states = ctx.saved_tensors
        x, projected, delta, dt_weight, bias, A, D = tensors
        problem = _problem(tensors, order, ctx.softplus)
        batch = x.shape[0]
        grad_y = torch.zeros_like(x) if grad_y is None else grad_y.contiguous()
        grad_last_state = None if grad_last_state is None else grad_last_state.contiguous()
        # A batch item's channels are split where the batch alone would leave threads idle; every part sums the
        # gradient of the projection over its own channels.
        items = max(1, batch * problem.groups)
        splits = max(1, min(-(-torch.get_num_threads() // items), -(-problem.channels // WIDEST)))
        grad_x = torch.zeros_like(x)
        grad_projected = projected.new_zeros(splits, *projected.shape)
        grad_delta = None if delta is None else torch.zeros_like(delta)
        per_item = [
            x.new_zeros(batch, *A.shape[:2], *columns) for columns in ((problem.rank,), (), (problem.states,), ())
        ]
        outputs = (grad_y, grad_last_state, chunk_states, grad_x, grad_projected, grad_delta, *per_item)
        native.backward(problem, native.Gradients(*map(native.address, outputs), splits), ctx.isa)
        grad_dt_weight, grad_bias, grad_A, grad_D = (part.sum(0) for part in per_item)
        return (
            grad_x,
            grad_projected.sum(0),
            grad_delta,
            None if dt_weight is None else grad_dt_weight,
            None if bias is None else grad_bias,
            grad_A,
            None if D is None else grad_D,
            *(None,) * 4,
        )


def _problem(tensors: Sequence[Tensor | None], order: Tensor, softplus: bool) -> native.Problem:
    x, projected, A = tensors[0], tensors[1], tensors[5]
    heads, channels, states = A.shape
    directions, tokens = order.shape
    sizes = (x.shape[0], heads // directions, directions, channels, states, projected.shape[3] - 2 * states)
    arrays = map(native.address, (order, *tensors))
    return native.Problem(*sizes, x.shape[1], tokens, CHUNK, int(softplus), *arrays)
