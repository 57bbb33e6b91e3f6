"""Self-attention over the tokens of a window."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.errors import InputError


class Attention(nn.Module):
    """Multi-head self-attention, ``proj(softmax(q kᵀ / √d) v)`` in each head of d channels.

    Args:
        channels: C of the input and the output.
        num_heads: Heads, which share the channels evenly.

    Shape:
        (B, L, C) to (B, L, C).
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or channels % num_heads:
            raise InputError(f'num_heads must divide the {channels} channels, got {num_heads}')
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
