"""Blocks on the windows of a map."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Windowed(nn.Sequential):
    """Cuts a map into square windows, runs its blocks on the tokens of each, and puts the map together again.

    The map is padded with zeros at the bottom and the right to whole windows. To the blocks the padding is tokens like
    the others: nothing masks it, and it costs as much, so a window larger than the map makes work. Published weights
    are used to that.

    Args:
        window_size: Side of a window, in pixels of the map.
        blocks: In sequence; each takes (windows, window_size², C) and keeps that shape.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, window_size: int, *blocks: nn.Module) -> None:
        super().__init__(*blocks)
        self.window_size = window_size

    def forward(self, x: Tensor) -> Tensor:
        size, (height, width) = self.window_size, x.shape[2:]
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -width % size, 0, -height % size))
        # (B, rows of windows, columns of windows, rows, columns, C)
        windows = x.unflatten(2, (-1, size)).unflatten(1, (-1, size)).transpose(2, 3)
        tokens = super().forward(windows.flatten(3, 4).flatten(0, 2))
        x = tokens.reshape(windows.shape).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return x[:, :height, :width].permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f'window_size={self.window_size}'
