"""MambaVision: convolutions at high resolution, then scans and attention in windows."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from mmdet.registry import MODELS
from torch import nn

from mmmamba.errors import InputError
from mmmamba.layers import ConvStem, LayerNorm2d
from mmmamba.layers.mamba_vision import Attention, MambaVisionBlock, MambaVisionMixer, ResidualConvBlock, Windowed
from mmmamba.models.backbones.staged_backbone import StagedBackbone
from mmmamba.models.utils import drop_path_rates, require_positive_integers, resolve_arch

CONV_STAGES = 2


class MambaVisionArch(NamedTuple):
    """Size of a MambaVision: ``num_heads`` are those of the last two stages."""

    depths: Sequence[int]
    widths: Sequence[int]
    stem_width: int = 32
    num_heads: Sequence[int] = (8, 16)
    layer_scale: float | None = None


@MODELS.register_module()
class MambaVision(StagedBackbone):
    """Hybrid of Mamba and Transformer (MambaVision, arXiv 2407.08083, figure 2)::

        image → stem → conv block × depths[0] = C2 → conv, stride 2 → conv block × depths[1] = C3
              → conv, stride 2 → window block × depths[2] = C4 → conv, stride 2 → window block × depths[3] = C5

    In a stage of window blocks, the first half (rounded up) mixes the tokens with MambaVision mixers, the rest with
    self-attention. The maps of ``out_indices`` pass a layer norm of their own.

    Args:
        arch: ``'t'``, ``'t2'``, ``'s'``, ``'b'``, ``'l'`` or ``'l2'``; None where ``depths`` and ``widths`` are given,
            with the other settings of ``'t'``.
        depths, widths: Blocks and channels of each stage, instead of the arch's; the last two widths are even.
        stem_width: Channels of the first convolution, instead of the arch's.
        num_heads: Heads of the attention in C4 and C5, instead of the arch's.
        layer_scale: What the scales of the window blocks' residual branches start from, instead of the arch's (None,
            or 1e-5 from B on); 0 for no scales.
        window_sizes: Sides of the windows of C4 and C5, in pixels of these maps. The default is that of the published
            detectors; the classifiers were trained with ``(14, 7)``. No weight depends on it.
        in_channels: Channels of the image.
        out_indices, frozen_stages, norm_eval, init_cfg: See :class:`StagedBackbone`.
        with_cp: Recompute the window blocks in the backward pass, for less memory and more time.
        drop_path_rate: Stochastic depth of the last block; it rises linearly from 0 at the first.

    Raises:
        InputError: An argument that names nothing, or out of range.
    """

    arch_settings = MappingProxyType({
        't': MambaVisionArch((1, 3, 8, 4), (80, 160, 320, 640)),
        't2': MambaVisionArch((1, 3, 11, 4), (80, 160, 320, 640)),
        's': MambaVisionArch((3, 3, 7, 5), (96, 192, 384, 768), 64),
        'b': MambaVisionArch((3, 3, 10, 5), (128, 256, 512, 1024), 64, (8, 16), 1e-5),
        'l': MambaVisionArch((3, 3, 10, 5), (196, 392, 784, 1568), 64, (16, 32), 1e-5),
        'l2': MambaVisionArch((3, 3, 12, 5), (196, 392, 784, 1568), 64, (16, 32), 1e-5),
    })

    def __init__(self, arch: str | None = 't', depths: Sequence[int] | None = None,
                 widths: Sequence[int] | None = None, stem_width: int | None = None,
                 num_heads: Sequence[int] | None = None, layer_scale: float | None = None,
                 window_sizes: Sequence[int] = (112, 56), in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3), frozen_stages: int = -1, norm_eval: bool = False,
                 with_cp: bool = False, drop_path_rate: float = 0.0,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        depths, widths, stem_width, num_heads, layer_scale = resolve_arch(
            self.arch_settings, arch, depths=depths, widths=widths, stem_width=stem_width, num_heads=num_heads,
            layer_scale=layer_scale)
        require_positive_integers('stem_width', (stem_width, ), 1)
        require_positive_integers('num_heads', num_heads, len(widths) - CONV_STAGES)
        require_positive_integers('window_sizes', window_sizes, len(widths) - CONV_STAGES)
        if any(width % 2 for width in widths[CONV_STAGES:]):
            raise InputError(f'the widths of C4 and C5 must be even, got {widths}')
        drop_paths = drop_path_rates(drop_path_rate, depths)

        self.stem = ConvStem(in_channels, stem_width, widths[0])
        self.downsamples = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 3, 2, 1, bias=False) for i in range(self.num_stages - 1))
        stages: list[nn.Module] = [
            nn.Sequential(*(ResidualConvBlock(width, next(drop_paths)) for _ in range(depth)))
            for depth, width in zip(depths[:min(CONV_STAGES, self.num_stages)], widths)]
        for depth, width, heads, window_size in zip(
                depths[CONV_STAGES:self.num_stages], widths[CONV_STAGES:], num_heads, window_sizes):
            mixers = (MambaVisionMixer(width) if 2 * index < depth else Attention(width, heads)
                      for index in range(depth))
            stages.append(Windowed(window_size, *(
                MambaVisionBlock(width, mixer, layer_scale or None, next(drop_paths), with_cp) for mixer in mixers)))
        self.stages = nn.ModuleList(stages)
        self.out_norms = self.make_out_norms(widths, partial(LayerNorm2d, eps=1e-5))
        self.freeze()
