"""Vision clue merge: the down-sampling of ODMamba."""
from __future__ import annotations

from torch import Tensor, nn

from mmmamba.layers.conv_norm_act import ConvNormAct
from mmmamba.layers.norm import YOLO_BATCH_NORM, NormLayer
from mmmamba.layers.patch_merging import join_squares


class VisionClueMerge(nn.Module):
    """Halves a map without losing a pixel: the four of each 2x2 square on the channels, then a 1x1 convolution.

    (Mamba YOLO, "Vision Clue Merge".) An odd side is padded with zeros at the bottom or right.

    Args:
        in_channels: C of the input.
        out_channels: C' of the output.
        norm_layer: Makes the normalisation.

    Shape:
        (B, C, H, W) to (B, C', ceil(H / 2), ceil(W / 2)).
    """

    def __init__(self, in_channels: int, out_channels: int, norm_layer: NormLayer = YOLO_BATCH_NORM) -> None:
        super().__init__()
        self.proj = ConvNormAct(4 * in_channels, out_channels, bias=True, norm_layer=norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(join_squares(x))
