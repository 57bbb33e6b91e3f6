"""Vision Mamba: bidirectional scans over plain tokens."""
from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import NamedTuple

from mmdet.registry import MODELS
from torch import Tensor, nn

from mmmamba.layers.vim import VimBlock, VimMixer
from mmmamba.models.backbones.plain_backbone import PlainBackbone
from mmmamba.models.utils import drop_path_rates, resolve_arch


class PlainArch(NamedTuple):
    """Size of a plain backbone: its blocks and their channels."""

    depth: int
    width: int


@MODELS.register_module()
class Vim(PlainBackbone):
    """Vision Mamba (arXiv 2401.09417, figure 2), as the backbone of a detector::

        image → patches of 16 x 16 + positions → Vim block × depth → sum of hidden state and residual

    There is no class token and no norm after the last block. A map of several strides comes from the neck,
    :class:`mmmamba.models.necks.SimpleFeaturePyramid`.

    Args:
        arch: ``'ti'``, ``'s'`` or ``'b'``; None where ``depth`` and ``width`` are given.
        depth, width: Blocks, and channels of each, instead of the arch's.
        img_size: Side of the images whose grid the position embedding has, in pixels, or (height, width); images of
            other sizes are taken too. 1024 is the published detectors', 224 the classifiers'.
        rope: Rotary positions before each block, as in the published detectors; their classifiers have none.
        halve: Halve the sum of the two directions. The classifiers did; the detector of June 2024 did not.
        in_channels, out_indices, frozen_stages, init_cfg: See :class:`PlainBackbone`, also for errors.
        with_cp: Recompute the blocks in the backward pass, for less memory and more time.
        drop_path_rate: Stochastic depth towards the end; it rises linearly from 0 at the first block.
    """

    arch_settings = MappingProxyType({
        'ti': PlainArch(24, 192),
        's': PlainArch(24, 384),
        'b': PlainArch(24, 768),
    })

    def __init__(self, arch: str | None = 'ti', depth: int | None = None, width: int | None = None,
                 img_size: int | Sequence[int] = 1024, rope: bool = True, halve: bool = True, in_channels: int = 3,
                 out_indices: Sequence[int] | None = None, frozen_stages: int = -1, with_cp: bool = False,
                 drop_path_rate: float = 0.0, init_cfg: dict | list[dict] | None = None) -> None:
        depth, width = resolve_arch(self.arch_settings, arch, depth=depth, width=width)
        super().__init__(depth, width, img_size, in_channels, rope, out_indices, frozen_stages, init_cfg)
        # What a block drops is the hidden state of the block before it.
        drop_paths = [0.0, *drop_path_rates(drop_path_rate, (depth, ))]
        self.blocks = nn.ModuleList(
            VimBlock(VimMixer(width, halve=halve), nn.RMSNorm(width, eps=1e-5), drop_path, with_cp)
            for drop_path in drop_paths[:self.num_stages])
        self.freeze()

    def output(self, index: int, hidden: Tensor, residual: Tensor) -> Tensor:
        """Returns the sum of hidden state and residual."""
        return hidden + residual
