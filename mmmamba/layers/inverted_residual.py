"""Inverted residual: the convolutional block of EfficientVMamba's low resolutions."""
from __future__ import annotations

from torch import Tensor, nn

from mmmamba.layers.conv_norm_act import ConvNormAct
from mmmamba.layers.drop_path import DropPath
from mmmamba.layers.norm import NormLayer
from mmmamba.layers.squeeze_excitation import SqueezeExcitation

EXPANSION = 4


class InvertedResidual(nn.Module):
    """Inverted residual with squeeze-and-excitation (MobileNetV3, arXiv 1905.02244)::

        out = x + DropPath(reduce(SE(depthwise(expand(x)))))

    1x1, depthwise 3x3 and 1x1 convolution, each with its norm, the first two with a ReLU; 4·C hidden channels.

    Args:
        channels: C of the input and the output.
        drop_path: Probability of dropping the residual branch.
        norm_layer: Makes the normalisations.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, drop_path: float = 0.0, norm_layer: NormLayer = nn.BatchNorm2d) -> None:
        super().__init__()
        hidden = EXPANSION * channels
        self.expand = ConvNormAct(channels, hidden, norm_layer=norm_layer, act_layer=nn.ReLU)
        self.depthwise = ConvNormAct(hidden, hidden, 3, groups=hidden, norm_layer=norm_layer, act_layer=nn.ReLU)
        self.se = SqueezeExcitation(hidden, max(channels // 2, 1))
        self.reduce = ConvNormAct(hidden, channels, norm_layer=norm_layer, act_layer=nn.Identity)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.reduce(self.se(self.depthwise(self.expand(x)))))
