"""The backend ``torch``: the recurrence split into chunks, with its gradient, in operations that every device has."""
from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.ops.dispatch import compute_dtype, refuse_second_derivative
from mmmamba.ops.scan.reference import add_skip, step_sizes


def scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Takes and returns what :func:`reference.scan` does. Its memory grows linearly with the length."""
    dtype = compute_dtype(u, delta, A, B, C, D, delta_bias)
    u = u.to(dtype)
    delta = step_sizes(delta.to(dtype), delta_bias, delta_softplus)
    y, last_state = ChunkedScan.apply(u, delta, A.to(dtype), B.to(dtype), C.to(dtype))
    return add_skip(y, u, D), last_state


class ChunkedScan(torch.autograd.Function):
    """h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = <C_t, h_t>, in about 3 sqrt(L) vectorised steps.

    The length is cut into about sqrt(2 L) chunks. A first pass walks through the positions of a chunk, all chunks at
    once, and gives the state at every chunk's end as if it had started from zero; a second carries the states from
    chunk to chunk (a whole chunk decays by exp(A sum delta)); a third repeats the first from the right states. Exactly
    the recurrence: no exponential of a sum with the opposite sign, hence no overflow.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
        """Takes and returns what :func:`reference.scan` does; ``delta`` are the final step sizes; all of one dtype."""
        chunked = _Chunked(u, delta, A, B, C)
        roots = chunked.root_decays()
        zero_state = u.new_zeros(*roots.shape[:3], A.shape[1])
        entering, last_state = _carry(chunked.end_states(torch.zeros_like(roots)), roots, zero_state)
        y = torch.empty_like(chunked.u)
        state = entering
        for t in range(chunked.positions):
            state = chunked.step(t, state)
            torch.sum(state * chunked.C[t], dim=-1, out=y[t])
        ctx.save_for_backward(u, delta, A, B, C, entering)
        return chunked.to_sequence(y), last_state.reshape(u.shape[0], u.shape[1], A.shape[1])

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_last_state: Tensor) -> tuple[Tensor, ...]:
        """Keeps only the chunks' entering states from the forward and recomputes the others: see README.md."""
        refuse_second_derivative()
        u, delta, A, B, C, entering = ctx.saved_tensors
        with torch.autocast(u.device.type, enabled=False):
            return _backward(u, delta, A, B, C, entering, grad_y, grad_last_state)


class _Chunked:
    """Inputs in the layout (position in chunk, batch, group, channel of group, chunk[, N]), zero-padded at the end.

    B and C have one channel of a group; if they are constant, one batch item and chunk instead, and all positions are
    views of one matrix. A padded step has step size zero and the decay 1, whatever A is.
    """

    def __init__(self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> None:
        self.batch, self.channels, self.length = u.shape
        self.groups = next((matrix.shape[1] for matrix in (B, C) if matrix.dim() == 4), 1)
        self.positions = max(1, math.isqrt(max(self.length, 1) // 2))
        self.chunks = -(-self.length // self.positions)
        self.A = self._per_channel(A)
        self.u, self.delta = self.by_position(u), self.by_position(delta)
        self.B, self.C = self._matrix_by_position(B), self._matrix_by_position(C)
        self.delta_u = self.delta * self.u

    def by_position(self, sequence: Tensor) -> Tensor:
        """Turns (batch, channels, length) into the layout by position."""
        return self._cut(sequence, self.channels // self.groups).permute(4, 0, 1, 2, 3).contiguous()

    def _matrix_by_position(self, matrix: Tensor) -> Tensor:
        """Turns (batch, group, N, length) or (channels, N) into the layout by position."""
        if matrix.dim() == 2:
            return self._per_channel(matrix).expand(self.positions, 1, -1, -1, -1, -1)
        return self._cut(matrix, matrix.shape[2]).permute(4, 0, 1, 3, 2).contiguous().unsqueeze(3)

    def _per_channel(self, matrix: Tensor) -> Tensor:
        """Turns (channels, N) into (group, channel of group, 1, N)."""
        return matrix.reshape(self.groups, self.channels // self.groups, 1, matrix.shape[1])

    def _cut(self, sequence: Tensor, rows: int) -> Tensor:
        """Rows of a group along the length to (batch, group, row, chunk, position)."""
        padded = F.pad(sequence, (0, self.positions * self.chunks - self.length))
        return padded.reshape(self.batch, self.groups, rows, self.chunks, self.positions)

    def to_sequence(self, by_position: Tensor) -> Tensor:
        """Inverts :meth:`by_position` for (batch, channels, length)."""
        padded = by_position.permute(1, 2, 3, 4, 0).reshape(self.batch, self.channels, self.chunks * self.positions)
        return padded[..., : self.length].contiguous()

    def to_matrix(self, gradients: list[Tensor], like: Tensor) -> Tensor:
        """Returns the gradient of ``like``, B or C, from what each position gives to it."""
        by_position = torch.stack(gradients)
        if like.dim() == 2:
            return by_position.sum(0).reshape(like.shape)
        padded = by_position.squeeze(3).permute(1, 2, 4, 3, 0).flatten(3)
        return padded[..., : self.length].contiguous()

    def decay(self, t: int) -> Tensor:
        decay = torch.exp(self.delta[t].unsqueeze(-1) * self.A)
        if t + (self.chunks - 1) * self.positions >= self.length:
            decay[..., -1:, :] = 1  # zero times what is infinite or not a number would not be zero
        return decay

    def root_decays(self) -> Tensor:
        """Returns square roots of what states decay by over a chunk, made finite: see :func:`_carry`."""
        return _finite(torch.exp(_finite(self.delta.sum(0)).unsqueeze(-1) / 2 * self.A))

    def step(self, t: int, state: Tensor) -> Tensor:
        """Takes the states (batch, group, channel of group, chunk, N) before position t of every chunk past it."""
        return torch.addcmul(self.delta_u[t].unsqueeze(-1) * self.B[t], self.decay(t), state)

    def end_states(self, state: Tensor) -> Tensor:
        for t in range(self.positions):
            state = self.step(t, state)
        return state


def _finite(tensor: Tensor) -> Tensor:
    """Returns infinity as the largest number of the dtype; what is not a number stays so."""
    largest = torch.finfo(tensor.dtype).max
    return tensor.clamp(-largest, largest)


def _carry(local: Tensor, roots: Tensor, initial: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """Solves carry_{i+1} = roots_i^2 carry_i + local_i along the chunks (dimension -2), or backwards along them.

    The decay of many steps may be too large for the dtype where the state after them is not, and where the state is
    zero it stays so. Hence finite roots, one after the other. A step without a finite decay shows in ``local``.

    Returns:
        What enters every chunk, shaped as ``local``, and what leaves the last one.
    """
    carry, entering = initial, torch.empty_like(local)
    chunks = range(local.shape[-2])
    for i in reversed(chunks) if reverse else chunks:
        entering[..., i, :] = carry
        carry = torch.addcmul(local[..., i, :], roots[..., i, :], roots[..., i, :] * carry)
    return entering, carry


def _backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    entering: Tensor,
    grad_y: Tensor,
    grad_last_state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    chunked = _Chunked(u, delta, A, B, C)
    gy = chunked.by_position(grad_y).unsqueeze(-1)

    # The gradient that reaches each chunk's last state from the chunks after it.
    local = torch.zeros_like(entering)
    for t in reversed(range(chunked.positions)):
        local = torch.addcmul(local, chunked.C[t], gy[t]) * chunked.decay(t)
    initial = grad_last_state.reshape(*entering.shape[:3], A.shape[1])
    grad_state, _ = _carry(local, chunked.root_decays(), initial, reverse=True)

    states = [entering]
    for t in range(chunked.positions):
        states.append(chunked.step(t, states[-1]))
    grad_delta_u, grad_delta = torch.empty_like(chunked.u), torch.empty_like(chunked.u)
    grad_B, grad_C = [], []
    grad_A = torch.zeros_like(chunked.A)
    for t in reversed(range(chunked.positions)):
        grad_state = torch.addcmul(grad_state, chunked.C[t], gy[t])
        grad_C.append((gy[t] * states.pop()).sum_to_size(chunked.C[t].shape))
        grad_B.append((grad_state * chunked.delta_u[t].unsqueeze(-1)).sum_to_size(chunked.B[t].shape))
        torch.sum(grad_state * chunked.B[t], dim=-1, out=grad_delta_u[t])
        grad_state = grad_state * chunked.decay(t)  # now of the state before this step
        grad_exponent = grad_state * states[-1]
        torch.sum(grad_exponent * chunked.A, dim=-1, out=grad_delta[t])
        grad_A += (grad_exponent * chunked.delta[t].unsqueeze(-1)).sum(dim=(0, 3)).unsqueeze(2)
    grad_u = grad_delta_u * chunked.delta
    grad_delta += grad_delta_u * chunked.u
    return (
        chunked.to_sequence(grad_u),
        chunked.to_sequence(grad_delta),
        grad_A.reshape(A.shape),
        chunked.to_matrix(grad_B[::-1], B),
        chunked.to_matrix(grad_C[::-1], C),
    )
