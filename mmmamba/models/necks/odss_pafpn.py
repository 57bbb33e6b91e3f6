"""ODSS-PAFPN: the neck of Mamba YOLO."""
from __future__ import annotations

from collections.abc import Sequence

from mmdet.registry import MODELS
from torch import nn

from mmmamba.layers import ConvNormAct, ODSSBlock
from mmmamba.models.necks.yolo_pafpn import YOLOPAFPN
from mmmamba.models.utils import norm_layer_from_cfg


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
        in_channels: Channels of the maps, finest first.
        out_channels: Channels of the outputs: one number for all, one for each level, or None for ``in_channels``.
        num_ss2d: SS2D in each block.
        ssm: False leaves the ODSS blocks out: only their 1x1 projection stands behind each joining.
        local_spatial: Whether an LSBlock stands before the scans.
        mlp: The blocks' MLP, as in :class:`ODMamba`.
        gate_act: Activation inside the MLPs.
        ssm_init: ``'reference'`` or ``'mamba'``.
        with_cp: Recompute scans and MLPs in the backward pass.
        norm_cfg: mmdet's normalisation config.
        init_cfg: mmengine's initialisation config.

    Raises:
        InputError: The levels of ``in_channels`` and ``out_channels`` differ in number.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int | Sequence[int] | None = None,
        num_ss2d: int = 1,
        ssm: bool = True,
        local_spatial: bool = False,
        mlp: str = 'rg',
        gate_act: str = 'gelu',
        ssm_init: str = 'reference',
        with_cp: bool = False,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, init_cfg)
        self.ssm = ssm
        self.norm_layer = norm_layer_from_cfg(norm_cfg)
        self.block_cfg = dict(
            num_ss2d=num_ss2d,
            proj_bias=False,
            local_spatial=local_spatial,
            mlp=mlp,
            gate_act=gate_act,
            ssm_init=ssm_init,
            with_cp=with_cp)
        self.build(self.norm_layer)

    def make_block(self, in_channels: int, out_channels: int) -> nn.Module:
        if not self.ssm:
            return ConvNormAct(in_channels, out_channels, norm_layer=self.norm_layer)
        return ODSSBlock(in_channels, out_channels, norm_layer=self.norm_layer, **self.block_cfg)
