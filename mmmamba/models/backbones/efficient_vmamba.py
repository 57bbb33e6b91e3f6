"""EfficientVMamba: scans at high resolution, convolutions at low."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import MappingProxyType

from mmdet.registry import MODELS
from torch import nn

from mmmamba.layers import EVSSBlock, InvertedResidual, LayerNorm2d, PatchEmbed, PatchMerging
from mmmamba.models.backbones.staged_backbone import StagedBackbone
from mmmamba.models.utils import Arch, drop_path_rates, norm_layer_from_cfg, resolve_arch

EVSS_STAGES = 2


@MODELS.register_module()
class EfficientVMamba(StagedBackbone):
    """EfficientVMamba (arXiv 2403.09977)::

        image → patches → EVSS × depths[0]  → LN = C2
              → merge   → EVSS × depths[1]  → LN = C3
              → merge   → inverted residual × depths[2] → LN = C4
              → merge   → inverted residual × depths[3] → LN = C5

    The layer norms are those of the outputs; what goes on is the map before them. ``arch='s'`` is the published S of
    11 M parameters; the file released under its name has ``widths=(96, 192, 384, 768)``.

    Args:
        arch: ``'t'``, ``'s'`` or ``'b'``; None where ``depths`` and ``widths`` are given.
        depths, widths: Blocks and channels of each stage, C2 … C5, instead of the arch's.
        in_channels: Channels of the image.
        out_indices, frozen_stages, norm_eval, init_cfg: See :class:`StagedBackbone`.
        with_cp: Recompute the scans in the backward pass, for less memory and more time.
        drop_path_rate: Stochastic depth of the last block; it rises linearly from 0 at the first.
        norm_cfg: mmdet's normalisation config, for all norms after convolutions; None for PyTorch's batch norm.

    Raises:
        InputError: An argument that names nothing, or out of range.
    """

    arch_settings = MappingProxyType({
        't': Arch((2, 2, 4, 2), (48, 96, 192, 384)),
        's': Arch((2, 2, 4, 2), (64, 128, 256, 512)),
        'b': Arch((2, 2, 9, 2), (96, 192, 384, 768)),
    })

    def __init__(self, arch: str | None = 't', depths: Sequence[int] | None = None,
                 widths: Sequence[int] | None = None, in_channels: int = 3, out_indices: Sequence[int] = (0, 1, 2, 3),
                 frozen_stages: int = -1, norm_eval: bool = False, with_cp: bool = False, drop_path_rate: float = 0.0,
                 norm_cfg: dict | None = None, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        depths, widths = resolve_arch(self.arch_settings, arch, depths=depths, widths=widths)
        norm_layer = norm_layer_from_cfg(norm_cfg or dict(type='BN'))
        drop_paths = drop_path_rates(drop_path_rate, depths)

        def block(stage: int) -> nn.Module:
            if stage < EVSS_STAGES:
                return EVSSBlock(widths[stage], next(drop_paths), with_cp, norm_layer)
            return InvertedResidual(widths[stage], next(drop_paths), norm_layer)

        self.stem = PatchEmbed(in_channels, widths[0])
        self.downsamples = nn.ModuleList(PatchMerging(widths[i], widths[i + 1]) for i in range(self.num_stages - 1))
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(stage) for _ in range(depths[stage]))) for stage in range(self.num_stages))
        self.out_norms = self.make_out_norms(widths, partial(LayerNorm2d, eps=1e-5))
        self.freeze()
