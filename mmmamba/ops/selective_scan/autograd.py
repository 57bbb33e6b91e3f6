"""The recurrence split into chunks, with its gradient, in PyTorch operations that every device has."""
from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.ops.dispatch import refuse_second_derivative


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
        chunked = _Chunked(u, delta, A, B)
        decays = chunked.chunk_decays()
        zero_state = u.new_zeros(*decays.shape[:3], A.shape[1])
        entering, last_state = _carry(chunked.end_states(torch.zeros_like(decays)), decays, zero_state)
        y = torch.empty_like(chunked.u)
        C_in_chunks = chunked.by_position(C, per_group=True)
        state = entering
        for t in range(chunked.positions):
            state = chunked.step(t, state)
            torch.sum(state * C_in_chunks[t], dim=-1, out=y[t])
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

    A padded step has step size zero: it changes no state.
    """

    def __init__(self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor) -> None:
        self.batch, self.channels, self.length = u.shape
        self.groups = B.shape[1]
        self.positions = max(1, math.isqrt(max(self.length, 1) // 2))
        self.chunks = -(-self.length // self.positions)
        self.A = A.reshape(self.groups, -1, 1, A.shape[1])  # (group, channel of group, 1, N)
        self.u, self.delta = self.by_position(u), self.by_position(delta)
        self.B = self.by_position(B, per_group=True)
        self.delta_u = self.delta * self.u

    def by_position(self, sequence: Tensor, per_group: bool = False) -> Tensor:
        """(batch, channels, length), or (batch, group, N, length) if per_group, to the layout by position."""
        padded = F.pad(sequence, (0, self.positions * self.chunks - self.length))
        shape = (self.batch, self.groups, padded.shape[2] if per_group else self.channels // self.groups)
        padded = padded.reshape(*shape, self.chunks, self.positions)
        if per_group:
            return padded.permute(4, 0, 1, 3, 2).contiguous().unsqueeze(3)
        return padded.permute(4, 0, 1, 2, 3).contiguous()

    def to_sequence(self, by_position: Tensor) -> Tensor:
        """The inverse of :meth:`by_position` for (batch, channels, length)."""
        padded = by_position.permute(1, 2, 3, 4, 0).reshape(self.batch, self.channels, self.chunks * self.positions)
        return padded[..., : self.length].contiguous()

    def to_group_sequence(self, by_position: Tensor) -> Tensor:
        """The inverse of :meth:`by_position` for (batch, group, N, length), without the channels' dimension."""
        padded = by_position.permute(1, 2, 4, 3, 0).flatten(3)
        return padded[..., : self.length].contiguous()

    def decay(self, t: int) -> Tensor:
        return torch.exp(self.delta[t].unsqueeze(-1) * self.A)

    def chunk_decays(self) -> Tensor:
        return torch.exp(self.delta.sum(0).unsqueeze(-1) * self.A)

    def step(self, t: int, state: Tensor) -> Tensor:
        """Takes the states (batch, group, channel of group, chunk, N) before position t of every chunk past it."""
        return torch.addcmul(self.delta_u[t].unsqueeze(-1) * self.B[t], self.decay(t), state)

    def end_states(self, state: Tensor) -> Tensor:
        for t in range(self.positions):
            state = self.step(t, state)
        return state


def _carry(local: Tensor, decays: Tensor, initial: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """Solves carry_{i+1} = decays_i carry_i + local_i along the chunks (dimension -2), or backwards along them.

    Returns:
        What enters every chunk, shaped as ``local``, and what leaves the last one.
    """
    carry, entering = initial, torch.empty_like(local)
    chunks = range(local.shape[-2])
    for i in reversed(chunks) if reverse else chunks:
        entering[..., i, :] = carry
        carry = torch.addcmul(local[..., i, :], decays[..., i, :], carry)
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
    chunked = _Chunked(u, delta, A, B)
    gy = chunked.by_position(grad_y).unsqueeze(-1)
    C_in_chunks = chunked.by_position(C, per_group=True)

    # The gradient that reaches each chunk's last state from the chunks behind it.
    local = torch.zeros_like(entering)
    for t in reversed(range(chunked.positions)):
        local = torch.addcmul(local, C_in_chunks[t], gy[t]) * chunked.decay(t)
    initial = grad_last_state.reshape(*entering.shape[:3], A.shape[1])
    grad_state, _ = _carry(local, chunked.chunk_decays(), initial, reverse=True)

    states = [entering]
    for t in range(chunked.positions):
        states.append(chunked.step(t, states[-1]))
    grad_delta_u, grad_delta = torch.empty_like(chunked.u), torch.empty_like(chunked.u)
    grad_B, grad_C = torch.empty_like(C_in_chunks.squeeze(3)), torch.empty_like(C_in_chunks.squeeze(3))
    grad_A = torch.zeros_like(chunked.A)
    for t in reversed(range(chunked.positions)):
        grad_state = torch.addcmul(grad_state, C_in_chunks[t], gy[t])
        torch.sum(gy[t] * states.pop(), dim=2, out=grad_C[t])
        torch.sum(grad_state * chunked.delta_u[t].unsqueeze(-1), dim=2, out=grad_B[t])
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
        chunked.to_group_sequence(grad_B),
        chunked.to_group_sequence(grad_C),
    )
