"""The blocks of YOLOv8, for the baseline and around the papers' own: C2f, SPPF and the prototypes of masks."""
from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.layers.common import YOLO_BATCH_NORM, ConvNormAct, NormLayer


class Bottleneck(nn.Module):
    """Two 3x3 convolutions that keep the number of channels, with a residual where ``shortcut``."""

    def __init__(self, channels: int, shortcut: bool, norm_layer: NormLayer = YOLO_BATCH_NORM) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.conv1 = ConvNormAct(channels, channels, 3, norm_layer=norm_layer)
        self.conv2 = ConvNormAct(channels, channels, 3, norm_layer=norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class C2f(nn.Module):
    """One half of the channels passes by, the other through bottlenecks in sequence; all that arise are joined.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; a bottleneck has half of them.
        num_blocks: Bottlenecks.
        shortcut: Whether a bottleneck has a residual (it does in the backbone, not in the neck).
        norm_layer: Makes the normalisations.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H, W).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int = 1,
        shortcut: bool = False,
        norm_layer: NormLayer = YOLO_BATCH_NORM,
    ) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.conv1 = ConvNormAct(in_channels, 2 * hidden, norm_layer=norm_layer)
        self.blocks = nn.ModuleList(Bottleneck(hidden, shortcut, norm_layer) for _ in range(num_blocks))
        self.conv2 = ConvNormAct((2 + num_blocks) * hidden, out_channels, norm_layer=norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        passing, x = self.conv1(x).chunk(2, dim=1)
        stages = accumulate(self.blocks, lambda x, block: block(x), initial=x)
        return self.conv2(torch.cat([passing, *stages], dim=1))


class SPPF(nn.Module):
    """Max pools of 5, 9 and 13 pixels, as three of 5 in sequence, joined with the map, between 1x1 convolutions.

    Args:
        channels: C of the input and the output; the pools see half of them.
        norm_layer: Makes the normalisations.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, norm_layer: NormLayer = YOLO_BATCH_NORM) -> None:
        super().__init__()
        hidden = channels // 2
        self.conv1 = ConvNormAct(channels, hidden, norm_layer=norm_layer)
        self.conv2 = ConvNormAct(4 * hidden, channels, norm_layer=norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        pooled = accumulate(range(3), lambda x, _: F.max_pool2d(x, 5, stride=1, padding=2), initial=x)
        return self.conv2(torch.cat([*pooled], dim=1))


class MaskPrototypes(nn.Module):
    """Maps that masks are sums of (YOLACT's prototypes, arXiv 1904.02689, section 3.1), at twice the input's size.

    The last activation, SiLU, stays: a prototype is above -0.28.

    Args:
        channels: C of the input and of the convolutions up to the last.
        num_prototypes: K, the prototypes.
        norm_layer: Makes the normalisations.

    Shape:
        (B, C, H, W) to (B, K, 2 H, 2 W).
    """

    def __init__(self, channels: int, num_prototypes: int = 32, norm_layer: NormLayer = YOLO_BATCH_NORM) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, 3, norm_layer=norm_layer)
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.conv2 = ConvNormAct(channels, channels, 3, norm_layer=norm_layer)
        self.conv3 = ConvNormAct(channels, num_prototypes, norm_layer=norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.upsample(self.conv1(x))))
