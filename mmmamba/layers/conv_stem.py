"""Conv stem: the patch embedding of MambaVision."""
from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from mmmamba.layers.conv_norm_act import ConvNormAct

_NORM = partial(nn.BatchNorm2d, eps=1e-4)


class ConvStem(nn.Module):
    """Two 3x3 convolutions of stride 2, each with batch norm and ReLU (MambaVision, section 3.1).

    Args:
        in_channels: Channels of the image.
        hidden_channels: Channels between the two.
        out_channels: C.

    Shape:
        (B, in_channels, H, W) to (B, C, ceil(H / 4), ceil(W / 4)).
    """

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, hidden_channels, 3, 2, norm_layer=_NORM, act_layer=nn.ReLU)
        self.conv2 = ConvNormAct(hidden_channels, out_channels, 3, 2, norm_layer=_NORM, act_layer=nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))
