"""LS block: the local branch that stands before the scan."""
from __future__ import annotations

from torch import Tensor, nn

from mmmamba.layers.norm import YOLO_BATCH_NORM, NormLayer
from mmmamba.ops import pointwise_conv


class LSBlock(nn.Module):
    """Local spatial block (Mamba YOLO, 'LocalSpatial Block'): ``x + fc2(gelu(fc1(norm(dwconv(x)))))``.

    Args:
        channels: C of the input and the output.
        norm_layer: Makes the normalisation behind the depthwise convolution.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, norm_layer: NormLayer = YOLO_BATCH_NORM) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = norm_layer(channels)
        self.fc1 = nn.Conv2d(channels, channels, 1)
        self.fc2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x))
        y = pointwise_conv(y, self.fc1.weight, self.fc1.bias, activation='gelu')
        return pointwise_conv(y, self.fc2.weight, self.fc2.bias, residual=x)
