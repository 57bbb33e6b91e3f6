"""SPPF: fast spatial pyramid pooling."""
from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.layers.conv_norm_act import ConvNormAct
from mmmamba.layers.norm import YOLO_BATCH_NORM, NormLayer


class SPPF(nn.Module):
    """Max pools of 5, 9 and 13 pixels, as three of 5 in sequence, beside the map itself, between 1x1 convolutions.

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
