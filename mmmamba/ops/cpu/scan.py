"""temporary"""
from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from mmmamba.ops.cpu import native
from mmmamba.ops.cpu.autograd import CHUNK, WIDEST, _problem
from mmmamba.ops.orders import scan_orders, token_count


@lru_cache(maxsize=64)
def _order_of(pattern: str, height: int, width: int) -> Tensor:
    with torch.inference_mode(False):  # a kept tensor must serve training too
        return scan_orders(pattern, height, width, torch.device('cpu')).to(torch.int32).contiguous()


def _order(pattern, x, width):
    return _order_of(pattern, x.shape[1] // max(width, 1), width)


def states_size(x, A, pattern, width):
    heads, channels, states = A.shape
    chunks = -(-token_count(pattern, x.shape[1], width) // CHUNK)
    return x.shape[0] * heads * chunks * states * -(-channels // WIDEST) * WIDEST


def forward(x, projected, delta, dt_weight, bias, A, D, pattern, width, softplus, keep, isa=None):
    dtype = x.dtype
    x = x.float()
    tensors = (x, projected, None if delta is None else delta.float(), dt_weight, bias, A, D)
    order = _order(pattern, x, width)
    problem = _problem(tensors, order, softplus)
    y = torch.zeros_like(x)
    last_state = A.new_empty(x.shape[0], *A.shape)
    states = A.new_empty(states_size(x, A, pattern, width) if keep else 0)
    native.forward(problem, native.Outputs(*map(native.address, (y, last_state, states if keep else None))), isa)
    return y.to(dtype), last_state, states


def backward(grad_y, grad_last_state, x, projected, delta, dt_weight, bias, A, D, chunk_states, pattern, width,
             softplus, isa=None):
    dtype, ddtype = x.dtype, None if delta is None else delta.dtype
    x, grad_y = x.float(), grad_y.float()
    delta = None if delta is None else delta.float()
    order = _order(pattern, x, width)
    problem = _problem((x, projected, delta, dt_weight, bias, A, D), order, softplus)
    batch = x.shape[0]
    items = max(1, batch * problem.groups)
    splits = max(1, min(-(-torch.get_num_threads() // items), -(-problem.channels // WIDEST)))
    grad_x = torch.zeros_like(x)
    grad_projected = projected.new_zeros(splits, *projected.shape)
    grad_delta = None if delta is None else torch.zeros_like(delta)
    per_item = [x.new_zeros(batch, *A.shape[:2], *c) for c in ((problem.rank,), (), (problem.states,), ())]
    outputs = (grad_y, grad_last_state, chunk_states, grad_x, grad_projected, grad_delta, *per_item)
    native.backward(problem, native.Gradients(*map(native.address, outputs), splits), isa)
    grad_dt_weight, grad_bias, grad_A, grad_D = (part.sum(0) for part in per_item)
    e = x.new_empty(0)
    return (grad_x.to(dtype), grad_projected.sum(0), e if delta is None else grad_delta.to(ddtype),
            e if dt_weight is None else grad_dt_weight, x.new_empty(0) if bias is None else grad_bias, grad_A,
            x.new_empty(0) if D is None else grad_D)
