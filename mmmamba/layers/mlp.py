"""The plain MLP, and those that Mamba YOLO's table 3 compares the RG block with, as 1x1 convolutions on NCHW maps."""
from __future__ import annotations

from torch import Tensor, nn

from mmmamba.layers.activation import activation_name, build_activation
from mmmamba.layers.norm import LayerNorm2d
from mmmamba.layers.rg_block import RGBlock
from mmmamba.ops import pointwise_conv


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
        """As above, of ``norm(x)`` and plus ``residual`` where they are given: within the same passes."""
        return pointwise_conv(self._hidden(x, norm), self.fc2.weight, self.fc2.bias, residual=residual)

    def _hidden(self, x: Tensor, norm: LayerNorm2d | None) -> Tensor:
        """What ``fc2`` reads."""
        return self._expand(x, norm, activation_name(self.act))

    def _expand(self, x: Tensor, norm: LayerNorm2d | None, activation: str | None = None) -> Tensor:
        arguments = norm.arguments if norm else {}
        return pointwise_conv(x, self.fc1.weight, self.fc1.bias, activation=activation, **arguments)


class ConvMlp(Mlp):
    """``fc2(act(dwconv(fc1(x))))``: :class:`Mlp` with a depthwise 3x3 convolution inside."""

    def __init__(self, channels: int, mlp_ratio: float = 4.0, act: str = 'gelu') -> None:
        super().__init__(channels, mlp_ratio, act)
        hidden = self.fc1.out_channels
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def _hidden(self, x: Tensor, norm: LayerNorm2d | None) -> Tensor:
        return self.act(self.dwconv(self._expand(x, norm)))


class ResConvMlp(ConvMlp):
    """``fc2(act(dwconv(h) + h))`` with ``h = fc1(x)``: :class:`ConvMlp` with the convolution as a residual."""

    def _hidden(self, x: Tensor, norm: LayerNorm2d | None) -> Tensor:
        x = self._expand(x, norm)
        return self.act(self.dwconv(x) + x)


class GatedMlp(Mlp):
    """``fc2(act(x) · v)`` with ``x, v = split(fc1(input))``: the RG block without its convolution."""

    def __init__(self, channels: int, mlp_ratio: float = 4.0, act: str = 'gelu') -> None:
        super().__init__(channels, mlp_ratio, act)
        hidden = int(2 * self.fc1.out_channels / 3)
        self.fc1 = nn.Conv2d(channels, 2 * hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def _hidden(self, x: Tensor, norm: LayerNorm2d | None) -> Tensor:
        x, v = self._expand(x, norm).chunk(2, dim=1)
        return self.act(x) * v


MLPS: dict[str, type[nn.Module]] = {
    'rg': RGBlock,
    'mlp': Mlp,
    'conv': ConvMlp,
    'res_conv': ResConvMlp,
    'gated': GatedMlp,
}
"""Rows of table 3, by the name a config gives them."""
