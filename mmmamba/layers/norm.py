"""Normalisation layers of the visual Mambas."""
from __future__ import annotations

from functools import partial
from typing import Any, Callable

import torch.nn.functional as F
from torch import Tensor, nn

NormLayer = Callable[[int], nn.Module]
"""Makes a normalisation layer for a number of channels, e.g. ``partial(nn.BatchNorm2d, eps=1e-3)``."""

YOLO_BATCH_NORM: NormLayer = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03)
"""Batch normalisation as the whole YOLO family sets it."""


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of every pixel of an NCHW map.

    It reads the map channels-last, so it costs no copy where the map is ``torch.channels_last`` already, and what it
    returns always is.

    Args:
        channels: C, the number of channels.
        eps: Added to the variance.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    @property
    def arguments(self) -> dict[str, Any]:
        """What has :func:`mmmamba.ops.pointwise_conv` do the work of this layer."""
        return dict(norm_weight=self.weight, norm_bias=self.bias, eps=self.eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)
