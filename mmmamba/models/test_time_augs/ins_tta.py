"""Test-time augmentation of detectors with masks, which mmdet's does not merge."""
from __future__ import annotations

from typing import Any

import torch
from mmcv.ops import batched_nms
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

_DIMENSIONS = {'horizontal': (-1, ), 'vertical': (-2, ), 'diagonal': (-2, -1)}


@MODELS.register_module()
class InsTTAModel(DetTTAModel):
    """mmdet's ``DetTTAModel`` (same arguments), which keeps the masks of the boxes that it keeps.

    The boxes of all views, flipped back, go through NMS together; each of those that remain has the mask that its view
    gave it, flipped back. Masks of several views are not averaged: their boxes differ.
    """

    def _merge_single_sample(self, data_samples: list[DetDataSample]) -> DetDataSample:
        """Merges the predictions of an image's views, in pixels of the original image."""
        views = [sample.pred_instances for sample in data_samples]
        bboxes, scores = self.merge_aug_bboxes([view.bboxes for view in views], [view.scores for view in views],
                                               [sample.metainfo for sample in data_samples])
        merged = data_samples[0]
        if not len(bboxes):
            return merged
        labels = torch.cat([view.labels for view in views])
        detections, kept = batched_nms(bboxes, scores, labels, self.tta_cfg.nms)
        detections, kept = detections[:self.tta_cfg.max_per_img], kept[:self.tta_cfg.max_per_img]

        # InstanceData selects and joins tensors and encoded masks alike.
        found, positions, start = [], [], 0
        for sample, view in zip(data_samples, views):
            own = (start <= kept) & (kept < start + len(view))
            masks = InstanceData(masks=view.masks)[kept[own] - start].masks
            found.append(InstanceData(masks=_flip(masks, sample.flip_direction) if sample.flip else masks))
            positions.append(own.nonzero()[:, 0])
            start += len(view)
        in_order = InstanceData.cat(found)[torch.cat(positions).argsort()]
        merged.pred_instances = InstanceData(bboxes=detections[:, :4], scores=detections[:, 4], labels=labels[kept],
                                             masks=in_order.masks)
        return merged


def _flip(masks: Any, direction: str) -> Any:
    return masks.flip(_DIMENSIONS[direction] if isinstance(masks, Tensor) else direction)
