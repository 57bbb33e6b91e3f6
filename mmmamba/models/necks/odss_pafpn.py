"""ODSS-PAFPN: the neck of Mamba YOLO."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

from mmdet.registry import MODELS
from torch import nn

from mmmamba.layers import ConvNormAct, ODSSBlock
from mmmamba.models.necks.yolo_pafpn import YOLOPAFPN
from mmmamba.models.utils import Directions, directions_of_scans, norm_layer_from_cfg


@MODELS.register_module()
class ODSSPAFPN(YOLOPAFPN):
    """Neck of Mamba YOLO (arXiv 2406.05835, figure 2): a PAFPN of ODSS blocks::

        C5 ────────────┬─────────────────────── ++ → ODSS → P5
                       ↓ up                     ↑ conv, stride 2
        C4 ────────── ++ → ODSS ──┬────────── ++ → ODSS → P4
                                  ↓ up        ↑ conv, stride 2
        C3 ────────────────────── ++ → ODSS ──┴─────────→ P3

    ``++`` joins on the channels; ``up`` is nearest, to the size of the map it joins, so any image size will do. The
    levels may be any, as the paper's table 4 has P2–P5 too.

    Args:
        in_channels, out_channels, init_cfg: See :class:`YOLOPAFPN`, also for errors.
        num_ss2d: SS2D in each block; 0 leaves the scans out (the paper's table 2).
        ssm: False leaves the ODSS blocks out (table 4): only their 1x1 projection follows each joining.
        directions: For each SS2D, of the blocks down first, then of those up, as :class:`ODMamba` takes them.
        local_spatial, mlp, gate_act, ssm_init, with_cp, norm_cfg: See :class:`ODMamba`.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int | Sequence[int] | None = None, num_ss2d: int = 1,
                 ssm: bool = True, local_spatial: bool = False, mlp: str | None = 'rg', gate_act: str = 'gelu',
                 ssm_init: str = 'mamba_yolo', directions: Directions | None = None, with_cp: bool = False,
                 norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        norm_layer = norm_layer_from_cfg(norm_cfg)
        make_block: Callable[[int, int], nn.Module] = partial(ConvNormAct, norm_layer=norm_layer)
        if ssm:
            count = 2 * (len(in_channels) - 1) * num_ss2d
            scans = directions_of_scans(directions, count, count)

            def make_block(channels: int, out_channels: int) -> nn.Module:
                return ODSSBlock(channels, out_channels, num_ss2d, proj_bias=False, local_spatial=local_spatial,
                                 mlp=mlp, gate_act=gate_act, ssm_init=ssm_init,
                                 patterns=list(islice(scans, num_ss2d)), with_cp=with_cp, norm_layer=norm_layer)
        super().__init__(in_channels, out_channels, make_block, norm_layer, init_cfg)
