"""The necks of the YOLO family: their path aggregation, and YOLOv8's, the baseline."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmamba.errors import InputError
from mmmamba.layers import C2f, ConvNormAct
from mmmamba.layers.common import NormLayer
from mmmamba.models.utils import norm_layer_from_cfg


class YOLOPAFPN(BaseModule):
    """Top-down, then bottom-up path over two levels or more, by concatenation (PAFPN, arXiv 1803.01534).

    Args:
        in_channels: Channels of the maps, finest first.
        out_channels: Channels of the outputs: one number for all, one for each level, or None for ``in_channels``.
        make_block: Makes the block after a concatenation, from the numbers of its input and output channels.
        norm_layer: Makes the normalisations of the down-sampling convolutions.
        init_cfg: mmengine's initialisation config.

    Raises:
        InputError: ``in_channels`` has fewer than two levels, or ``out_channels`` another length.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int | Sequence[int] | None,
                 make_block: Callable[[int, int], nn.Module], norm_layer: NormLayer,
                 init_cfg: dict | list[dict] | None) -> None:
        super().__init__(init_cfg)
        inputs = tuple(in_channels)
        if out_channels is None:
            out_channels = inputs
        outputs = (out_channels, ) * len(inputs) if isinstance(out_channels, int) else tuple(out_channels)
        if len(inputs) < 2 or len(inputs) != len(outputs):
            raise InputError('in_channels must name at least two levels and out_channels as many; got '
                             f'{inputs} and {outputs}')
        self.in_channels = inputs
        last = len(inputs) - 1
        inner = (*outputs[:last], inputs[last])  # the channels of each level between the two paths
        self.top_down_blocks = nn.ModuleList(  # coarsest first
            make_block(inner[i + 1] + inputs[i], outputs[i]) for i in range(last - 1, -1, -1))
        self.downsamples = nn.ModuleList(
            ConvNormAct(outputs[i], outputs[i], 3, 2, norm_layer=norm_layer) for i in range(last))
        self.bottom_up_blocks = nn.ModuleList(
            make_block(outputs[i] + inner[i + 1], outputs[i + 1]) for i in range(last))

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Fuses the levels.

        Args:
            feats: (B, in_channels[i], H_i, W_i), finest first, each side half of the one before, rounded up.

        Returns:
            (B, out_channels[i], H_i, W_i) of each level.
        """
        channels = tuple(feat.shape[1] for feat in feats)
        if channels != self.in_channels:
            raise InputError(f'{type(self).__name__} was made for maps of {self.in_channels} channels, got {channels}')
        inner = [feats[-1]]
        for feat, block in zip(feats[-2::-1], self.top_down_blocks):
            above = F.interpolate(inner[0], size=feat.shape[-2:], mode='nearest')
            inner.insert(0, block(torch.cat([above, feat], dim=1)))
        outs = [inner[0]]
        for feat, downsample, block in zip(inner[1:], self.downsamples, self.bottom_up_blocks):
            outs.append(block(torch.cat([downsample(outs[-1]), feat], dim=1)))
        return tuple(outs)


@MODELS.register_module()
class YOLOv8PAFPN(YOLOPAFPN):
    """PAFPN of C2f blocks, YOLOv8's neck.

    Args:
        in_channels, out_channels, init_cfg: See :class:`YOLOPAFPN`, also for errors.
        num_blocks: Bottlenecks in each C2f.
        norm_cfg: mmdet's normalisation config.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int | Sequence[int] | None = None,
                 num_blocks: int = 1, norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        norm_layer = norm_layer_from_cfg(norm_cfg)
        make_block = partial(C2f, num_blocks=num_blocks, norm_layer=norm_layer)
        super().__init__(in_channels, out_channels, make_block, norm_layer, init_cfg)
