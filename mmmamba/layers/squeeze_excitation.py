"""Squeeze-and-excitation: channels weighted by what the whole map holds."""
from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation (arXiv 1709.01507)::

        out = x · sigmoid(expand(act(reduce(mean of norm(x) over the pixels))))

    Args:
        channels: C of the input and the output.
        hidden: Channels between the two projections.
        act_layer: Makes the activation between them.
        norm: What the map goes through before its mean is taken; None for nothing.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        act_layer: Callable[[], nn.Module] = nn.ReLU,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.Identity() if norm is None else norm
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.act = act_layer()
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.norm(x).mean((2, 3), keepdim=True)
        return x * self.expand(self.act(self.reduce(mean))).sigmoid()
