"""ODMamba: the backbone of Mamba YOLO."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from types import MappingProxyType

from mmdet.registry import MODELS
from torch import nn

from mmmamba.errors import InputError
from mmmamba.layers import SPPF, ConvNormAct, ODSSBlock, SimpleStem, VisionClueMerge
from mmmamba.models.backbones.staged_backbone import StagedBackbone
from mmmamba.models.utils import (
    NUM_STAGES,
    Arch,
    Directions,
    directions_of_scans,
    drop_path_rates,
    norm_layer_from_cfg,
    resolve_arch,
)

DOWNSAMPLES = ('clue_merge', 'conv')


@MODELS.register_module()
class ODMamba(StagedBackbone):
    """Backbone of Mamba YOLO (arXiv 2406.05835, figure 2)::

        image → stem → ODSS × depths[0] = C2 → merge → ODSS × depths[1] = C3
              → merge → ODSS × depths[2] = C4 → merge → ODSS × depths[3] → SPPF = C5

    The defaults are the paper's. The public code has ``local_spatial=True`` and, for T and B, ``depths=(1, 1, 3, 1)``
    (for L ``(2, 2, 6, 2)``).

    Args:
        arch: ``'t'``, ``'b'`` or ``'l'``; None where ``depths`` and ``widths`` are given.
        depths, widths: ODSS blocks and channels of each stage, C2 … C5, instead of the arch's.
        in_channels: Channels of the image.
        out_indices, frozen_stages, norm_eval, init_cfg: See :class:`StagedBackbone`.
        with_cp: Recompute scans and MLPs in the backward pass, for less memory and more time.
        drop_path_rate: Stochastic depth of the last block; it rises linearly from 0 at the first.
        num_ss2d: SS2D in each block; 0 leaves the scans out (the paper's table 2).
        local_spatial: Whether an LSBlock comes before each scan.
        mlp: ``'rg'`` (the paper's RG block), ``'mlp'``, ``'conv'``, ``'res_conv'`` or ``'gated'`` (its table 3), or
            None for none (table 2).
        gate_act: Activation inside the MLPs: ``'gelu'``, ``'silu'`` or ``'relu'``.
        downsample: ``'clue_merge'``, or ``'conv'`` for 3x3 convolutions of stride 2 (the paper's table 2).
        ssm_init: ``'mamba_yolo'`` or ``'mamba'``, see :func:`mmmamba.layers.ss2d.init_ssm_`.
        directions: For each SS2D of the whole backbone, or up to the last output, names of directions
            (:data:`mmmamba.ops.scan.orders.ORDERS`), which ``tools/search_directions.py`` finds; None for those of
            'cross'.
        norm_cfg: mmdet's normalisation config, for all norms after convolutions.

    Raises:
        InputError: An argument that names nothing, or out of range.
    """

    arch_settings = MappingProxyType({
        't': Arch((1, 2, 2, 1), (32, 64, 128, 256)),
        'b': Arch((1, 2, 2, 1), (64, 128, 256, 512)),
        'l': Arch((2, 4, 4, 2), (96, 192, 384, 576)),
    })
    has_sppf = True

    def __init__(self, arch: str | None = 't', depths: Sequence[int] | None = None,
                 widths: Sequence[int] | None = None, in_channels: int = 3, out_indices: Sequence[int] = (1, 2, 3),
                 frozen_stages: int = -1, norm_eval: bool = False, with_cp: bool = False, drop_path_rate: float = 0.0,
                 num_ss2d: int = 1, local_spatial: bool = False, mlp: str | None = 'rg', gate_act: str = 'gelu',
                 downsample: str = 'clue_merge', ssm_init: str = 'mamba_yolo',
                 directions: Directions | None = None, norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        depths, widths = resolve_arch(self.arch_settings, arch, depths=depths, widths=widths)
        if downsample not in DOWNSAMPLES:
            raise InputError(f'downsample must be one of {DOWNSAMPLES}, got {downsample!r}')
        norm_layer = norm_layer_from_cfg(norm_cfg)
        merge = VisionClueMerge if downsample == 'clue_merge' else partial(ConvNormAct, kernel_size=3, stride=2)
        drop_paths = drop_path_rates(drop_path_rate, depths)
        scans = directions_of_scans(
            directions, sum(depths) * num_ss2d, sum(depths[:self.num_stages]) * num_ss2d)

        self.stem = SimpleStem(in_channels, widths[0], norm_layer)
        self.downsamples = nn.ModuleList(
            merge(widths[i], widths[i + 1], norm_layer=norm_layer) for i in range(self.num_stages - 1))
        block = partial(ODSSBlock, num_ss2d=num_ss2d, local_spatial=local_spatial, mlp=mlp, gate_act=gate_act,
                        ssm_init=ssm_init, with_cp=with_cp, norm_layer=norm_layer)
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(width, width, drop_path=next(drop_paths), patterns=list(islice(scans, num_ss2d)))
                            for _ in range(depth)))
            for depth, width in zip(depths[:self.num_stages], widths))
        if self.num_stages == NUM_STAGES:
            self.sppf = SPPF(widths[-1], norm_layer)
        self.freeze()
