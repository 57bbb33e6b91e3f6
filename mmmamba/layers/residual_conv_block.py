"""Residual convolution block: the unit of MambaVision's first two stages."""
from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from mmmamba.layers.conv_norm_act import ConvNormAct
from mmmamba.layers.drop_path import DropPath


class ResidualConvBlock(nn.Module):
    """``x + DropPath(BN(conv(GELU(BN(conv(x))))))`` with 3x3 convolutions (MambaVision, equation 1).

    The GELU is the tanh approximation, which the published weights were trained with.

    Args:
        channels: C of the input and the output.
        drop_path: Probability of dropping the residual branch.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, drop_path: float = 0.0) -> None:
        super().__init__()
        conv = partial(ConvNormAct, channels, channels, 3, bias=True, norm_layer=nn.BatchNorm2d)
        self.conv1 = conv(act_layer=partial(nn.GELU, approximate='tanh'))
        self.conv2 = conv(act_layer=nn.Identity)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.conv2(self.conv1(x)))
