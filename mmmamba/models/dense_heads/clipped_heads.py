"""Boxes that end at the picture's edges, also of those of mmdet's heads that leave them as they are."""
from __future__ import annotations

from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads import DeformableDETRHead, DINOHead, RTMDetSepBNHead, YOLOXHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from torch import Tensor


class ClippedBoxes:
    """A mixin of heads: predictions are clipped to the picture, in whose pixels they are.

    mmdet's heads clip to ``img_shape``, if at all, and divide by the scale afterwards, which rounds.
    """

    def predict_by_feat(self, *outputs: list[Tensor], batch_img_metas: list[dict], rescale: bool = False,
                        **options: object) -> list[InstanceData]:
        """Returns the parent's boxes, clipped to ``ori_shape`` or, unless ``rescale``, to ``img_shape``."""
        found = super().predict_by_feat(  # type: ignore[misc]
            *outputs, batch_img_metas=batch_img_metas, rescale=rescale, **options)
        for instances, meta in zip(found, batch_img_metas):
            boxes = HorizontalBoxes(instances.bboxes)
            boxes.clip_(meta['ori_shape' if rescale else 'img_shape'])
            instances.bboxes = boxes.tensor
        return found


@MODELS.register_module()
class ClippedYOLOXHead(ClippedBoxes, YOLOXHead):
    """mmdet's ``YOLOXHead`` (same arguments), which itself does not clip."""


@MODELS.register_module()
class ClippedRTMDetSepBNHead(ClippedBoxes, RTMDetSepBNHead):
    """mmdet's ``RTMDetSepBNHead`` (same arguments), which clips to the letterbox in mmdet's own pipelines."""


@MODELS.register_module()
class ClippedDINOHead(ClippedBoxes, DINOHead):
    """mmdet's ``DINOHead`` (same arguments); see :class:`LetterboxPreprocessor`."""


@MODELS.register_module()
class ClippedDeformableDETRHead(ClippedBoxes, DeformableDETRHead):
    """mmdet's ``DeformableDETRHead`` (same arguments); see :class:`LetterboxPreprocessor`."""


@MODELS.register_module()
class LetterboxPreprocessor(DetDataPreprocessor):
    """mmdet's ``DetDataPreprocessor`` (same arguments) for DETRs that are trained on mosaics and letterboxes.

    A DETR normalises coordinates by ``img_shape`` and masks what is outside. In such training that is the whole
    square, so it has to be in testing, where ``LetterboxPad`` leaves the picture's own: boxes would get other
    proportions.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Runs the parent's with ``img_shape`` set to ``pad_shape``."""
        data = super().forward(data, training)
        for sample in data['data_samples'] or ():
            sample.set_metainfo({'img_shape': sample.pad_shape})
        return data
