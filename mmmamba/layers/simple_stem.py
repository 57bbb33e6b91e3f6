"""Simple stem: the patch embedding of ODMamba."""
from __future__ import annotations

from torch import Tensor, nn

from mmmamba.layers.conv_norm_act import ConvNormAct
from mmmamba.layers.norm import YOLO_BATCH_NORM, NormLayer


class SimpleStem(nn.Module):
    """Two 3x3 convolutions of stride 2 in place of non-overlapping patches (Mamba YOLO, 'Simple Stem').

    Args:
        in_channels: Channels of the image.
        out_channels: C; the first convolution has half of them.
        norm_layer: Makes the normalisations.

    Shape:
        (B, in_channels, H, W) to (B, C, ceil(H / 4), ceil(W / 4)).
    """

    def __init__(self, in_channels: int, out_channels: int, norm_layer: NormLayer = YOLO_BATCH_NORM) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.conv1 = ConvNormAct(in_channels, hidden, 3, 2, norm_layer=norm_layer, act_layer=nn.GELU)
        self.conv2 = ConvNormAct(hidden, out_channels, 3, 2, norm_layer=norm_layer, act_layer=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))
