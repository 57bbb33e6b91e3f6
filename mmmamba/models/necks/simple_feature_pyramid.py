"""The simple feature pyramid of plain backbones."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmamba.errors import InputError
from mmmamba.layers import ConvNormAct, LayerNorm2d

LEVELS = 4


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Makes maps of several strides from one of stride 16 (ViTDet, arXiv 2203.16527, figure 2)::

        F → conv, up 2x → LN → GELU → conv, up 2x → 1x1 → LN → 3x3 → LN = P2, stride 4
        F → conv, up 2x                           → 1x1 → LN → 3x3 → LN = P3
        F                                         → 1x1 → LN → 3x3 → LN = P4
        F → max, down 2x                          → 1x1 → LN → 3x3 → LN = P5 → every second pixel = P6

    The convolutions that go up are transposed, 2x2, and halve the channels. Whatever plain backbone F comes from: Vim,
    or a ViT of mmpretrain or of mmdet's projects.

    Args:
        in_channels: Channels d of F, a multiple of 4.
        out_channels: Channels of all outputs.
        num_outs: How many maps, from P2 on; those after P5 are each every second pixel of the one before.
        init_cfg: mmengine's initialisation config.

    Raises:
        InputError: ``in_channels`` is no multiple of 4, or ``num_outs`` is less than 4.
    """

    def __init__(self, in_channels: int, out_channels: int = 256, num_outs: int = 5,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        if in_channels < 4 or in_channels % 4:
            raise InputError(f'in_channels must be a multiple of 4, got {in_channels}')
        if num_outs < LEVELS:
            raise InputError(f'num_outs must be at least {LEVELS}, got {num_outs}')
        self.in_channels = in_channels
        self.num_outs = num_outs
        half, quarter = in_channels // 2, in_channels // 4
        up = partial(nn.ConvTranspose2d, kernel_size=2, stride=2)
        conv = partial(ConvNormAct, norm_layer=LayerNorm2d, act_layer=nn.Identity)

        def project(channels: int) -> tuple[nn.Module, nn.Module]:
            return conv(channels, out_channels), conv(out_channels, out_channels, 3)

        self.levels = nn.ModuleList([
            nn.Sequential(
                up(in_channels, half), LayerNorm2d(half), nn.GELU(), up(half, quarter), *project(quarter)),
            nn.Sequential(up(in_channels, half), *project(half)),
            nn.Sequential(*project(in_channels)),
            # Odd maps keep their last row and column, as those before and after it do: the strides stay 32 and 64.
            nn.Sequential(nn.MaxPool2d(2, 2, ceil_mode=True), *project(in_channels)),
        ])

    def forward(self, feats: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Makes the pyramid.

        Args:
            feats: The map (B, in_channels, H, W), or a sequence of that map alone, as backbones return it.

        Returns:
            (B, out_channels, …) of sizes (4 H, 4 W), (2 H, 2 W), (H, W), then each half of the one before, rounded up.

        Raises:
            InputError: Several maps, or other channels.
        """
        maps = (feats, ) if isinstance(feats, Tensor) else tuple(feats)
        if len(maps) != 1 or maps[0].shape[1] != self.in_channels:
            raise InputError(f'SimpleFeaturePyramid was made for one map of {self.in_channels} channels, got '
                             f'{len(maps)} of {[feat.shape[1] for feat in maps]}')
        outs = [level(maps[0]) for level in self.levels]
        while len(outs) < self.num_outs:
            outs.append(outs[-1][..., ::2, ::2])
        return tuple(outs)
