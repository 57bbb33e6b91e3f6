"""Convolution, normalisation, activation."""
from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from mmmamba.layers.norm import YOLO_BATCH_NORM, NormLayer


class ConvNormAct(nn.Module):
    """A convolution with 'same' padding, its normalisation and an activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd side of the kernel; the padding is half of it.
        stride: Stride of the convolution.
        groups: Groups of the convolution; as many as channels for a depthwise one.
        bias: Whether the convolution has a bias of its own.
        norm_layer: Makes the normalisation.
        act_layer: Makes the activation.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm_layer: NormLayer = YOLO_BATCH_NORM,
        act_layer: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=bias)
        self.norm = norm_layer(out_channels)
        self.act = act_layer()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))
