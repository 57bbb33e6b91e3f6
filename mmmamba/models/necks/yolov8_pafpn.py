"""YOLOv8's neck, the baseline."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mmdet.registry import MODELS

from mmmamba.layers import C2f
from mmmamba.models.necks.yolo_pafpn import YOLOPAFPN
from mmmamba.models.utils import norm_layer_from_cfg


@MODELS.register_module()
class YOLOv8PAFPN(YOLOPAFPN):
    """PAFPN of C2f blocks, YOLOv8's neck.

    Args:
        in_channels: Channels of the maps, finest first.
        out_channels: Channels of the outputs: one number for all, one for each level, or None for ``in_channels``.
        num_blocks: Bottlenecks in each C2f.
        norm_cfg: mmdet's normalisation config.
        init_cfg: mmengine's initialisation config.

    Raises:
        InputError: Fewer than two levels, or another number of ``out_channels`` than of ``in_channels``.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int | Sequence[int] | None = None,
        num_blocks: int = 1,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        norm_layer = norm_layer_from_cfg(norm_cfg)
        make_block = partial(C2f, num_blocks=num_blocks, norm_layer=norm_layer)
        super().__init__(in_channels, out_channels, make_block, norm_layer, init_cfg)
