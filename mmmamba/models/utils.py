"""Small things that the models share."""
from __future__ import annotations

from mmcv.cnn import build_norm_layer

from mmmamba.layers.common import YOLO_BATCH_NORM, NormLayer


def norm_layer_from_cfg(norm_cfg: dict | None) -> NormLayer:
    """The layers' ``norm_layer`` from mmdet's ``norm_cfg``; None stands for the batch norm of the YOLO family."""
    if norm_cfg is None:
        return YOLO_BATCH_NORM
    return lambda channels: build_norm_layer(norm_cfg, channels)[1]
