"""The MLPs that Mamba YOLO's table 3 compares the RG block with, as 1x1 convolutions on NCHW maps."""
from __future__ import annotations

from torch import Tensor, nn

from mmmamba.layers.activation import build_activation
from mmmamba.layers.norm import LayerNorm2d
from mmmamba.layers.rg_block import RGBlock


class Mlp(nn.Module):
    """``fc2(act(fc1(x)))``.

    Args:
        channels: C of the input and the output.
        mlp_ratio: Hidden channels over C.
        act: ``'gelu'``, ``'silu'`` or ``'relu'``.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, mlp_ratio: float = 4.0, act: str = 'gelu') -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = build_activation(act)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor, norm: LayerNorm2d | None = None, residual: Tensor | None = None) -> Tensor:
        """As above, of ``norm(x)`` and plus ``residual`` where they are given."""
        y = self._mlp(norm(x) if norm else x)
        return y if residual is None else residual + y

    def _mlp(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class ConvMlp(Mlp):
    """``fc2(act(dwconv(fc1(x))))``: :class:`Mlp` with a depthwise 3x3 convolution inside."""

    def __init__(self, channels: int, mlp_ratio: float = 4.0, act: str = 'gelu') -> None:
        super().__init__(channels, mlp_ratio, act)
        hidden = self.fc1.out_channels
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def _mlp(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class ResConvMlp(ConvMlp):
    """``fc2(act(dwconv(h) + h))`` with ``h = fc1(x)``: :class:`ConvMlp` with the convolution as a residual."""

    def _mlp(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        return self.fc2(self.act(self.dwconv(hidden) + hidden))


class GatedMlp(Mlp):
    """``fc2(act(x) · v)`` with ``x, v = split(fc1(input))``: the RG block without its convolution."""

    def __init__(self, channels: int, mlp_ratio: float = 4.0, act: str = 'gelu') -> None:
        super().__init__(channels, mlp_ratio, act)
        hidden = int(2 * self.fc1.out_channels / 3)
        self.fc1 = nn.Conv2d(channels, 2 * hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def _mlp(self, x: Tensor) -> Tensor:
        x, v = self.fc1(x).chunk(2, dim=1)
        return self.fc2(self.act(x) * v)


MLPS: dict[str, type[nn.Module]] = {
    'rg': RGBlock,
    'mlp': Mlp,
    'conv': ConvMlp,
    'res_conv': ResConvMlp,
    'gated': GatedMlp,
}
"""Rows of table 3, by the name a config gives them."""
