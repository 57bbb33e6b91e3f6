"""VMamba: a hierarchical backbone of VSS blocks."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from mmdet.registry import MODELS
from torch import nn

from mmmamba.errors import InputError
from mmmamba.layers import ConvNormAct, LayerNorm2d, VSSBlock
from mmmamba.models.backbones.staged_backbone import StagedBackbone
from mmmamba.models.utils import (
    Directions,
    directions_of_scans,
    drop_path_rates,
    require_positive_integers,
    resolve_arch,
)

LAYER_NORM = partial(LayerNorm2d, eps=1e-5)


class VMambaArch(NamedTuple):
    """Size of a VMamba: blocks and channels of its four stages, and scanned channels over these."""

    depths: Sequence[int]
    widths: Sequence[int]
    ssm_ratio: float = 1.0


@MODELS.register_module()
class VMamba(StagedBackbone):
    """VMamba (arXiv 2401.10166), in the channels-first form of its public detectors::

        image → stem → VSS × depths[0] → down → VSS × depths[1] → down → VSS × depths[2] → down → VSS × depths[3]

    The stem is two 3x3 convolutions of stride 2, ``down`` is one; a layer norm follows each, and one more on
    each map that is returned. There is no batch norm.

    Args:
        arch: ``'t'`` (s1l8), ``'s'``, ``'b'`` (s1l20), or those that scan twice as many channels in fewer blocks:
            ``'t_s2l5'``, ``'s_s2l15'``, ``'b_s2l15'``. None where ``depths`` and ``widths`` are given.
        depths, widths: VSS blocks and channels of each stage, instead of the arch's.
        in_channels: Channels of the image.
        out_indices, frozen_stages, init_cfg: See :class:`StagedBackbone`.
        with_cp: Recompute the blocks in the backward pass, for less memory and more time.
        drop_path_rate: Stochastic depth of the last block; it rises linearly from 0 at the first.
        ssm_ratio: Scanned channels over a stage's channels, instead of the arch's.
        d_state: N, states of every scanned channel.
        mlp_ratio: Hidden channels of the MLPs over a stage's channels.
        ssm_init: ``'mamba'`` or ``'mamba_yolo'``, see :func:`mmmamba.layers.ss2d.init_ssm_`.
        directions: Of each block's scan, as :class:`ODMamba` takes them.

    Raises:
        InputError: An argument that names nothing, or out of range.
    """

    arch_settings = MappingProxyType({
        't': VMambaArch((2, 2, 8, 2), (96, 192, 384, 768)),
        's': VMambaArch((2, 2, 20, 2), (96, 192, 384, 768)),
        'b': VMambaArch((2, 2, 20, 2), (128, 256, 512, 1024)),
        't_s2l5': VMambaArch((2, 2, 5, 2), (96, 192, 384, 768), ssm_ratio=2.0),
        's_s2l15': VMambaArch((2, 2, 15, 2), (96, 192, 384, 768), ssm_ratio=2.0),
        'b_s2l15': VMambaArch((2, 2, 15, 2), (128, 256, 512, 1024), ssm_ratio=2.0),
    })

    def __init__(self, arch: str | None = 't', depths: Sequence[int] | None = None,
                 widths: Sequence[int] | None = None, in_channels: int = 3, out_indices: Sequence[int] = (0, 1, 2, 3),
                 frozen_stages: int = -1, with_cp: bool = False, drop_path_rate: float = 0.0,
                 ssm_ratio: float | None = None, d_state: int = 1, mlp_ratio: float = 4.0, ssm_init: str = 'mamba',
                 directions: Directions | None = None, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(out_indices, frozen_stages, norm_eval=False, init_cfg=init_cfg)
        depths, widths, ssm_ratio = resolve_arch(
            self.arch_settings, arch, depths=depths, widths=widths, ssm_ratio=ssm_ratio)
        require_positive_integers('d_state', (d_state, ), 1)
        if widths[0] < 2 or min(ssm_ratio, mlp_ratio) * min(widths) < 1:
            raise InputError(f'widths, ssm_ratio and mlp_ratio must leave a channel everywhere, got {widths}, '
                             f'{ssm_ratio} and {mlp_ratio}')
        drop_paths = drop_path_rates(drop_path_rate, depths)
        scans = directions_of_scans(directions, sum(depths), sum(depths[:self.num_stages]))
        conv = partial(ConvNormAct, kernel_size=3, stride=2, bias=True, norm_layer=LAYER_NORM, act_layer=nn.Identity)
        block = partial(VSSBlock, d_state=d_state, ssm_ratio=ssm_ratio, mlp_ratio=mlp_ratio, ssm_init=ssm_init,
                        with_cp=with_cp)

        half = widths[0] // 2
        self.stem = nn.Sequential(conv(in_channels, half, act_layer=nn.GELU), conv(half, widths[0]))
        self.downsamples = nn.ModuleList(conv(widths[i], widths[i + 1]) for i in range(self.num_stages - 1))
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(width, pattern=next(scans), drop_path=next(drop_paths)) for _ in range(depth)))
            for depth, width in zip(depths[:self.num_stages], widths))
        self.out_norms = self.make_out_norms(widths, LAYER_NORM)
        self.freeze()
