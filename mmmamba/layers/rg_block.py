"""RG block: the gated, locally residual MLP of an ODSS block."""
from __future__ import annotations

from torch import Tensor, nn

from mmmamba.layers.activation import activation_name, build_activation
from mmmamba.layers.norm import LayerNorm2d
from mmmamba.ops import inverted_bottleneck


class RGBlock(nn.Module):
    """Residual gated block (Mamba YOLO, 'RG Block')::

        x, v = split(fc1(input))
        out  = fc2(act(dwconv(x) + x) · v)

    Args:
        channels: C of the input and the output.
        mlp_ratio: A plain MLP of this ratio has as many weights: each branch has ``int(2 / 3 · mlp_ratio · C)``.
        act: Activation of the gate: ``'gelu'``, ``'silu'`` or ``'relu'``.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, mlp_ratio: float = 4.0, act: str = 'gelu') -> None:
        super().__init__()
        hidden = int(2 * int(channels * mlp_ratio) / 3)
        self.fc1 = nn.Conv2d(channels, 2 * hidden, 1)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = build_activation(act)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor, norm: LayerNorm2d | None = None, residual: Tensor | None = None) -> Tensor:
        """As above, of ``norm(x)`` and plus ``residual`` where they are given: within the same passes."""
        return inverted_bottleneck(
            x,
            self.fc1.weight,
            self.fc1.bias,
            self.dwconv.weight,
            self.dwconv.bias,
            skip=True,
            activation=activation_name(self.act),
            reduce_weight=self.fc2.weight,
            reduce_bias=self.fc2.bias,
            residual=residual,
            **(norm.arguments if norm else {}))
