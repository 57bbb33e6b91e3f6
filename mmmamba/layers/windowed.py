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
        size, (batch, channels, height, width) = self.window_size, x.shape
        rows, columns = -(-height // size), -(-width // size)
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, columns * size - width, 0, rows * size - height))
        windows = x.view(batch, rows, size, columns, size, channels).transpose(2, 3)
        tokens = super().forward(windows.reshape(batch * rows * columns, size * size, channels))
        windows = tokens.view(batch, rows, columns, size, size, channels).transpose(2, 3)
        x = windows.reshape(batch, rows * size, columns * size, channels)
        return x[:, :height, :width].permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f'window_size={self.window_size}'
