"""EfficientVMamba (arXiv 2403.09977): patches, the EVSS block, the inverted residual, and merging."""
from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmamba.layers.common import ConvNormAct, DropPath, LayerNorm2d, NormLayer, join_squares
from mmmamba.layers.ss2d import SS2D

PATCH_SIZE = 4


class PatchEmbed(nn.Module):
    """Cuts an image into 4x4 patches (Swin, arXiv 2103.14030, 'patch partition'): ``norm(conv(x))``.

    A side that is no multiple of 4 is padded with zeros at the bottom or right.

    Args:
        in_channels: Channels of the image.
        out_channels: C of the output.

    Shape:
        (B, in_channels, H, W) to (B, C, ceil(H / 4), ceil(W / 4)).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, PATCH_SIZE, PATCH_SIZE)
        self.norm = LayerNorm2d(out_channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % PATCH_SIZE or width % PATCH_SIZE:
            x = F.pad(x, (0, -width % PATCH_SIZE, 0, -height % PATCH_SIZE))
        return self.norm(self.conv(x))


class PatchMerging(nn.Module):
    """Halves a map without losing a pixel (Swin, arXiv 2103.14030): ``reduction(norm(join_squares(x)))``.

    Args:
        in_channels: C of the input.
        out_channels: C' of the output.

    Shape:
        (B, C, H, W) to (B, C', ceil(H / 2), ceil(W / 2)).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(4 * in_channels, eps=1e-5)
        self.reduction = nn.Conv2d(4 * in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(join_squares(x)))


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
        mean = self.norm(x).mean((2, 3), keepdim=True).to(self.reduce.weight.dtype)  # x may be more precise
        return x * self.expand(self.act(self.reduce(mean))).sigmoid()


SE_REDUCTION = 8


class EVSSBlock(nn.Module):
    """Efficient visual state space block (EfficientVMamba, arXiv 2403.09977)::

        n   = norm(x)
        out = x + DropPath(SE(ES2D(n)) + SE(local(n)))         the same SE for both

    ES2D is an :class:`SS2D` that skips: each direction scans its own quarter of the pixels, every other row and
    column. ``local`` is a depthwise 3x3 and a 1x1 convolution.

    Args:
        channels: C of the input and the output.
        drop_path: Probability of dropping the two branches.
        with_cp: Recompute the scan's branch in the backward pass, rather than keep its activations.
        norm_layer: Makes the normalisation after the depthwise convolution.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(
        self,
        channels: int,
        drop_path: float = 0.0,
        with_cp: bool = False,
        norm_layer: NormLayer = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.norm = LayerNorm2d(channels, eps=1e-5)
        self.ss2d = SS2D(channels, act='silu', pattern='atrous', ssm_init='mamba')
        self.local = nn.Sequential(
            ConvNormAct(channels, channels, 3, groups=channels, bias=True, norm_layer=norm_layer, act_layer=nn.GELU),
            nn.Conv2d(channels, channels, 1))
        self.se = SqueezeExcitation(
            channels, max(channels // SE_REDUCTION, 1), nn.GELU, LayerNorm2d(channels, eps=1e-5))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm(x)
        # A batch norm stays outside of what is checkpointed: computed twice, it would count every batch twice.
        if self.with_cp and n.requires_grad:
            scanned = checkpoint(self._scanned, n, use_reentrant=False)
        else:
            scanned = self._scanned(n)
        return x + self.drop_path(scanned + self.se(self.local(n)))

    def _scanned(self, n: Tensor) -> Tensor:
        return self.se(self.ss2d(n))


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
