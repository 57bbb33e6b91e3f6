"""MambaVision block: the unit of the last two stages."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmamba.layers.drop_path import DropPath


class MambaVisionBlock(nn.Module):
    """A token mixer and an MLP, each in a residual branch (MambaVision, equation 5)::

        x = x + DropPath(scale1 · mixer(LN(x)))
        x = x + DropPath(scale2 · MLP(LN(x)))

    Args:
        channels: C of the input and the output; the MLP has four times as many in between.
        mixer: (B, L, C) to (B, L, C): a :class:`MambaVisionMixer` or an :class:`Attention`.
        layer_scale: What the scales, a number a channel, start from; None for none.
        drop_path: Probability of dropping a residual branch.
        with_cp: Recompute the block in the backward pass, rather than keep its activations.

    Shape:
        (B, L, C) to (B, L, C).
    """

    def __init__(
        self,
        channels: int,
        mixer: nn.Module,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.norm1 = nn.LayerNorm(channels)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.drop_path = DropPath(drop_path)
        self.scale1, self.scale2 = (
            None if layer_scale is None else nn.Parameter(torch.full((channels, ), float(layer_scale)))
            for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and x.requires_grad:
            return checkpoint(self._residuals, x, use_reentrant=False)
        return self._residuals(x)

    def _residuals(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(_scaled(self.mixer(self.norm1(x)), self.scale1))
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.scale2))


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale
