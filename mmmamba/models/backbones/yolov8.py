"""YOLOv8's backbone, the baseline."""
from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from mmdet.registry import MODELS
from torch import nn

from mmmamba.layers import SPPF, C2f, ConvNormAct
from mmmamba.models.backbones.staged_backbone import StagedBackbone
from mmmamba.models.utils import NUM_STAGES, Arch, norm_layer_from_cfg, resolve_arch


@MODELS.register_module()
class YOLOv8CSPDarknet(StagedBackbone):
    """CSPDarknet of C2f blocks, YOLOv8's backbone: a stem, four times (3x3 convolution of stride 2, C2f), then SPPF.

    Args:
        arch: ``'n'``, ``'s'``, ``'m'``, ``'l'`` or ``'x'``; None where ``depths`` and ``widths`` are given.
        depths, widths: Bottlenecks of the C2f and channels of each stage, C2 … C5, instead of the arch's; the stem has
            half of the first one's channels.
        in_channels: Channels of the image.
        out_indices, frozen_stages, norm_eval, init_cfg: See :class:`StagedBackbone`.
        norm_cfg: mmdet's normalisation config.

    Raises:
        InputError: An argument that names nothing, or out of range.
    """

    arch_settings = MappingProxyType({
        'n': Arch((1, 2, 2, 1), (32, 64, 128, 256)),
        's': Arch((1, 2, 2, 1), (64, 128, 256, 512)),
        'm': Arch((2, 4, 4, 2), (96, 192, 384, 576)),
        'l': Arch((3, 6, 6, 3), (128, 256, 512, 512)),
        'x': Arch((3, 6, 6, 3), (160, 320, 640, 640)),
    })
    has_sppf = True

    def __init__(self, arch: str | None = 'n', depths: Sequence[int] | None = None,
                 widths: Sequence[int] | None = None, in_channels: int = 3, out_indices: Sequence[int] = (1, 2, 3),
                 frozen_stages: int = -1, norm_eval: bool = False, norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        depths, widths = resolve_arch(self.arch_settings, arch, depths=depths, widths=widths)
        norm_layer = norm_layer_from_cfg(norm_cfg)
        inputs = (widths[0] // 2, *widths)

        self.stem = ConvNormAct(in_channels, inputs[0], 3, 2, norm_layer=norm_layer)
        self.downsamples = nn.ModuleList(
            ConvNormAct(inputs[i], widths[i], 3, 2, norm_layer=norm_layer) for i in range(self.num_stages))
        self.stages = nn.ModuleList(
            C2f(width, width, depth, shortcut=True, norm_layer=norm_layer)
            for depth, width in zip(depths[:self.num_stages], widths))
        if self.num_stages == NUM_STAGES:
            self.sppf = SPPF(widths[-1], norm_layer)
        self.freeze()
