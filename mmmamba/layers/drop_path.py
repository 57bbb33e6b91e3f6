"""Stochastic depth."""
from __future__ import annotations

from torch import Tensor, nn

from mmmamba.errors import InputError


class DropPath(nn.Module):
    """Drops the whole residual branch of a sample (stochastic depth, arXiv 1603.09382), while training.

    Args:
        drop_prob: Probability that a sample's branch is dropped; those kept are divided by ``1 - drop_prob``.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        if not 0 <= drop_prob < 1:
            raise InputError(f'drop_prob must be in [0, 1), got {drop_prob}')
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return x
        keep = x.new_empty(x.shape[0], *(1, ) * (x.ndim - 1)).bernoulli_(1 - self.drop_prob)
        return x * keep / (1 - self.drop_prob)

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob:g}'
