"""Small objects in large pictures: detection in overlapping parts, by the optional package supervision."""
from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmmamba.analysis.inference import Detector
from mmmamba.errors import InputError

_OVERLAP = 0.2  # of a part's side
_IOU = 0.5  # above which boxes of one class in two parts are one


class SlicedDetector:
    """Finds boxes in the parts of a picture, and joins them; it is used like the :class:`Detector` that it has.

    Args:
        detector: What looks at each part.
        size: Side of a part in pixels.

    Raises:
        ImportError: ``supervision`` is not installed.
    """

    def __init__(self, detector: Detector, size: int) -> None:
        self._detector = detector
        self._supervision = import_module('supervision')
        overlap = round(_OVERLAP * size)
        self._how = dict(slice_wh=(size, size), overlap_wh=(overlap, overlap), iou_threshold=_IOU)

    def prepare(self, image: np.ndarray, path: Path) -> dict:
        """Returns what :meth:`detect` takes; see :meth:`Detector.prepare`."""
        return {'image': image, 'path': path}

    def detect(self, prepared: Sequence[dict]) -> list[DetDataSample]:
        """Runs the model on each part of each picture; boxes are in the picture's pixels."""
        return [self._in_parts(**picture) for picture in prepared]

    def _in_parts(self, image: np.ndarray, path: Path) -> DetDataSample:
        def look_at(part: np.ndarray) -> Any:
            sample, = self._detector.detect([self._detector.prepare(part, path)])
            if 'masks' in sample.pred_instances:
                raise InputError('--slice is for boxes, and this model finds masks: leave it out')
            return self._supervision.Detections.from_mmdetection(sample)

        found = self._supervision.InferenceSlicer(callback=look_at, **self._how)(image)
        return DetDataSample(ori_shape=image.shape[:2], pred_instances=InstanceData(
            bboxes=torch.from_numpy(found.xyxy).float().reshape(-1, 4),
            scores=torch.from_numpy(_or_empty(found.confidence)).float(),
            labels=torch.from_numpy(_or_empty(found.class_id)).long()))


def _or_empty(values: np.ndarray | None) -> np.ndarray:
    return np.zeros(0) if values is None else values
