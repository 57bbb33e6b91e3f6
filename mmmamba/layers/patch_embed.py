"""Patch embedding: non-overlapping patches as the first map."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.layers.norm import LayerNorm2d

PATCH_SIZE = 4


class PatchEmbed(nn.Module):
    """Cuts an image into 4x4 patches (Swin, arXiv 2103.14030, 'patch partition'): ``norm(conv(x))``.

    A side that is no multiple of 4 is padded with zeros at the bottom or right.

    Args:
        in_channels: Channels of the image.
        out_channels: C of the output.

    Shape:
        (B, in_channels, H, W) to (B, C, ceil(H / 4), ceil(W / 4)).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, PATCH_SIZE, PATCH_SIZE)
        self.norm = LayerNorm2d(out_channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % PATCH_SIZE or width % PATCH_SIZE:
            x = F.pad(x, (0, -width % PATCH_SIZE, 0, -height % PATCH_SIZE))
        return self.norm(self.conv(x))
