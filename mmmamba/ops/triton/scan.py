"""Forward and backward pass of the fused scan in Triton."""
from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from mmmamba.ops.triton.geometry import Geometry, geometry
from mmmamba.ops.triton.tiling import Tiling, choose_tiling


def unavailable() -> str | None:
    """Why the kernels cannot be used here, as a sentence, or None."""
    if importlib.util.find_spec('triton') is None:
        return 'Triton is not installed.'
    return None


def interpreting() -> bool:
    """Whether the kernels run in Triton's interpreter, and then on tensors of the CPU."""
    from triton.runtime.interpreter import InterpretedFunction

    from mmmamba.ops.triton import kernels_forward

    return isinstance(kernels_forward.final_pass, InterpretedFunction)


def _launch(kernel, grid: int, *arguments, **constants) -> None:
    kernel[(grid,)](*arguments, **constants, num_warps=1)


def power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def forward(
    x: Tensor,
    projected: Tensor,
    delta: Tensor | None,
    dt_weight: Tensor | None,
    bias: Tensor | None,
    A: Tensor,
    D: Tensor | None,
    pattern: str,
    width: int,
    softplus: bool,
    keep: bool,
    tiling: Tiling | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    from mmmamba.ops.triton import kernels_forward as kernels

    g = geometry(x, projected, A, pattern, width)
    y = torch.empty_like(x)
    last_state = x.new_empty((g.batch, g.heads, g.channels, g.states), dtype=torch.float32)
    states = x.new_empty(0, dtype=torch.float32)
    if not x.numel():
        return y, last_state.zero_(), states
    tiling = tiling or choose_tiling(g)
    chunks = -(-g.positions // tiling.chunk)
    A = A.transpose(1, 2).contiguous()
    states = x.new_empty((g.batch, g.heads, chunks, g.states, g.channels), dtype=torch.float32)
    sums = x.new_empty((g.batch, g.heads, chunks, g.channels), dtype=torch.float32)
    geometry_of_kernels = (g.positions, g.height, g.width, g.channels, g.rank)
    constants = dict(N=g.states, WALKS=g.walks, SPACING=g.spacing, WIDE=g.wide, SOFTPLUS=softplus)
    shortest = min(-(-g.height // g.spacing), -(-g.width // g.spacing))
    if chunks > 1:
        blocks = -(-g.channels // tiling.local_block)
        _launch(
            kernels.local_pass, g.batch * g.units * chunks * blocks,
            x, projected, delta, dt_weight, bias, A, states, sums,
            g.units, chunks, blocks, tiling.chunk // tiling.local_tile, *geometry_of_kernels,
            TILE=tiling.local_tile, BLOCK=tiling.local_block, NARROW=shortest < tiling.local_tile, REVERSE=False, **constants,
        )
        blocks = -(-g.channels // tiling.carry_block)
        _launch(
            kernels.carry, g.batch * g.heads * g.states * blocks,
            states, sums, A, None, g.heads, chunks, blocks, g.channels,
            N=g.states, ROWS=tiling.carry_rows, BLOCK=tiling.carry_block, REVERSE=False,
        )
    blocks = -(-g.channels // tiling.final_block)
    items = g.batch * g.units * chunks * blocks
    programs = min(items, tiling.programs)
    scratch = x.new_empty((programs, g.states, tiling.final_block), dtype=torch.float32)
    planes = y if g.planes == 1 else x.new_empty((g.planes, *x.shape), dtype=torch.float32)
    _launch(
        kernels.final_pass, programs,
        x, projected, delta, dt_weight, bias, A, D, states, scratch, planes, last_state,
        items, g.units, chunks, blocks, tiling.chunk // tiling.final_tile, *geometry_of_kernels,
        0 if g.planes == 1 else x.numel(),
        NS=power_of_two(g.states), TILE=tiling.final_tile, BLOCK=tiling.final_block, NARROW=shortest < tiling.final_tile, **constants,
    )
    if g.planes > 1:
        torch.add(planes[0], planes[1], out=y)
    return y, last_state, states if keep else states.new_empty(0)


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
    states: Tensor,
    pattern: str,
    width: int,
    softplus: bool,
    tiling: Tiling | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from mmmamba.ops.triton import kernels_backward, kernels_forward

    g = geometry(x, projected, A, pattern, width)
    inputs = (x, projected, delta, dt_weight, bias, A, D)
    if not x.numel():
        return tuple(x.new_zeros(0) if t is None else torch.zeros_like(t) for t in inputs)
    tiling = tiling or choose_tiling(g)
    chunks = -(-g.positions // tiling.chunk)
    A = A.transpose(1, 2).contiguous()
    gradients = torch.empty_like(states)
    sums = x.new_empty((g.batch, g.heads, chunks, g.channels), dtype=torch.float32)
    geometry_of_kernels = (g.positions, g.height, g.width, g.channels, g.rank)
    constants = dict(N=g.states, WALKS=g.walks, SPACING=g.spacing, WIDE=g.wide, SOFTPLUS=softplus)
    shortest = min(-(-g.height // g.spacing), -(-g.width // g.spacing))
    if chunks > 1:
        blocks = -(-g.channels // tiling.local_block)
        _launch(
            kernels_forward.local_pass, g.batch * g.units * chunks * blocks,
            grad_y, projected, delta, dt_weight, bias, A, gradients, sums,
            g.units, chunks, blocks, tiling.chunk // tiling.local_tile, *geometry_of_kernels,
            TILE=tiling.local_tile, BLOCK=tiling.local_block, NARROW=shortest < tiling.local_tile, REVERSE=True, **constants,
        )
    if grad_last_state is None:
        grad_last_state = torch.zeros_like(states[:, :, 0]).transpose(2, 3)
    blocks = -(-g.channels // tiling.carry_block)
    _launch(
        kernels_forward.carry, g.batch * g.heads * g.states * blocks,
        gradients, sums, A, grad_last_state.contiguous(), g.heads, chunks, blocks, g.channels,
        N=g.states, ROWS=tiling.carry_rows, BLOCK=tiling.carry_block, REVERSE=True,
    )
    blocks = -(-g.channels // tiling.main_block)
    splits = min(tiling.splits, blocks)
    blocks = -(-blocks // splits)
    items = g.batch * chunks
    workers = min(items, max(tiling.programs // (g.units * splits), 1))
    tiles = tiling.chunk // tiling.main_tile
    scratch = x.new_empty((workers * g.units * splits, tiles + 1, g.states, tiling.main_block), dtype=torch.float32)
    grad_x = torch.empty_like(x)
    planes = grad_x if g.planes == 1 else x.new_empty((g.planes, *x.shape), dtype=torch.float32)
    allocate = torch.zeros if g.spacing > 1 else torch.empty
    grad_projected = allocate((splits, *projected.shape), dtype=torch.float32, device=x.device)
    grad_delta = None if delta is None else torch.empty_like(delta)
    parameters = x.new_zeros((workers, g.heads, g.states + 2 + g.rank, g.channels), dtype=torch.float32)
    _launch(
        kernels_backward.main_pass, workers * g.units * splits,
        grad_y, x, projected, delta, dt_weight, bias, A, D, states, gradients,
        scratch, planes, grad_projected, grad_delta, parameters,
        items, g.units, chunks, splits, blocks, tiles, *geometry_of_kernels,
        0 if g.planes == 1 else x.numel(), projected.numel(),
        NS=power_of_two(g.states), TILE=tiling.main_tile, BLOCK=tiling.main_block, NARROW=shortest < tiling.main_tile, **constants,
    )
    if g.planes > 1:
        torch.add(planes[0], planes[1], out=grad_x)
    parameters = parameters.sum(0)
    grad_A, grad_bias, grad_D, grad_weight = parameters.split([g.states, 1, 1, g.rank], 1)
    return (
        grad_x,
        grad_projected.sum(0),
        x.new_empty(0) if delta is None else grad_delta,
        x.new_empty(0) if dt_weight is None else grad_weight.transpose(1, 2).contiguous(),
        x.new_empty(0) if bias is None else grad_bias[:, 0].contiguous(),
        grad_A.transpose(1, 2).contiguous(),
        x.new_empty(0) if D is None else grad_D[:, 0].contiguous(),
    )
