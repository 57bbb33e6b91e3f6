"""The network of a detector; of two-stage ones as published tables count it, with as many boxes as there can be."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.structures import DetDataSample
from torch import Tensor, nn

PROPOSALS = 1000
DETECTIONS = 100
"""Boxes that the box heads and the mask heads see."""


def is_usual_two_stage(model: nn.Module) -> bool:
    """Whether it is an RPN and box and mask heads on RoIs: Faster, Mask and Cascade (Mask) R-CNN."""
    if not isinstance(model, TwoStageDetector) or not model.with_rpn:
        return False
    return type(model.roi_head) in (StandardRoIHead, CascadeRoIHead) and not model.roi_head.with_shared_head


def forward_network(detector: Any, images: Tensor, samples: Sequence[DetDataSample]) -> None:
    """Runs backbone, neck and heads once, without decoding, suppression and RoIAlign in detectors of the usual kinds.

    In other two-stage detectors all of it runs, on as many boxes as their weights make of the images.

    Args:
        detector: Any of mmdet's.
        images: (N, 3, H, W); N is 1 for two-stage detectors.
        samples: Of the images.
    """
    if is_usual_two_stage(detector):
        forward_two_stage(detector, images)
    else:
        detector(images, samples, mode='tensor')


def forward_two_stage(detector: Any, images: Tensor) -> None:
    """Runs backbone, neck and all heads once, each box head on 1000 boxes and each mask head on 100.

    The detector's own forward depends on how many proposals its weights make of the image, and a cascade's makes masks
    of them all. Here the heads see zeros instead of what RoIAlign cuts out.

    Args:
        detector: One of those above.
        images: (1, 3, H, W).
    """
    detector.rpn_head(detector.extract_feat(images))
    roi_head = detector.roi_head
    _run_heads(roi_head.bbox_head, roi_head.bbox_roi_extractor, PROPOSALS, images)
    if roi_head.with_mask:
        _run_heads(roi_head.mask_head, roi_head.mask_roi_extractor, DETECTIONS, images)


def _run_heads(heads: Any, extractors: Any, boxes: int, images: Tensor) -> None:
    for head, extractor in zip(_members(heads), _members(extractors)):
        head(images.new_zeros(boxes, extractor.out_channels, *extractor.roi_layers[0].output_size))


def _members(module: nn.Module) -> list[Any]:
    """A cascade has a list of what other detectors have one of."""
    return list(module) if isinstance(module, nn.ModuleList) else [module]
