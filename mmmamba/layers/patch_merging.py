"""Patch merging: the down-sampling of EfficientVMamba."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.layers.norm import LayerNorm2d


def join_squares(x: Tensor) -> Tensor:
    """The four pixels of each 2x2 square on the channels: top left, bottom left, top right, bottom right.

    An odd side is padded with zeros at the bottom or right.

    Args:
        x: (B, C, H, W).

    Returns:
        (B, 4 C, ceil(H / 2), ceil(W / 2)).
    """
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
    return torch.cat([x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=1)


class PatchMerging(nn.Module):
    """Halves a map without losing a pixel (Swin, arXiv 2103.14030): ``reduction(norm(join_squares(x)))``.

    Args:
        in_channels: C of the input.
        out_channels: C' of the output.

    Shape:
        (B, C, H, W) to (B, C', ceil(H / 2), ceil(W / 2)).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(4 * in_channels, eps=1e-5)
        self.reduction = nn.Conv2d(4 * in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(join_squares(x)))
