"""Small objects in large pictures: detection in overlapping parts, by the optional package supervision."""
from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmengine.structures import InstanceData

from mmmamba.analysis.inference import Detector
from mmmamba.models.encoded_masks import EncodedMasks

_OVERLAP = 0.2  # of a part's side
_IOU = 0.5  # above which boxes of one class in two parts are one


class SlicedDetector:
    """Finds objects in the parts of a picture, and joins them; it is used like the :class:`Detector` that it has.

    Of boxes of one class that overlap by more than half, the best stays. Masks go with their boxes, as run lengths:
    those of supervision are bitmaps of the whole picture, gigabytes of a large one.

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
        """Runs the model on each part of each picture; boxes and masks are in the picture's pixels."""
        return [self._in_parts(**picture) for picture in prepared]

    def _in_parts(self, image: np.ndarray, path: Path) -> DetDataSample:
        with_masks = False

        def look_at(part: np.ndarray) -> Any:
            nonlocal with_masks
            sample, = self._detector.detect([self._detector.prepare(part, path)])
            found = sample.pred_instances
            boxes = found.bboxes.numpy()
            with_masks |= 'masks' in found
            masks = {'run': _runs(found.masks), 'corner': boxes[:, :2]} if 'masks' in found else {}
            return self._supervision.Detections(boxes, confidence=found.scores.numpy(), class_id=found.labels.numpy(),
                                                data=masks)

        found = self._supervision.InferenceSlicer(callback=look_at, **self._how)(image)
        instances = InstanceData(
            bboxes=torch.from_numpy(found.xyxy).float().reshape(-1, 4),
            scores=torch.from_numpy(_or_empty(found.confidence)).float(),
            labels=torch.from_numpy(_or_empty(found.class_id)).long())
        if with_masks:
            corners = np.reshape(found.data.get('corner', ()), (-1, 2))  # nothing was found: no data
            places = np.rint(found.xyxy[:, :2] - corners).astype(int)  # of the parts, which the slicer does not tell
            runs = [_placed(run, place, image.shape[:2]) for run, place in zip(found.data.get('run', ()), places)]
            instances.masks = EncodedMasks(runs, *image.shape[:2])
        return DetDataSample(ori_shape=image.shape[:2], pred_instances=instances)


def _runs(masks: Any) -> np.ndarray:
    """Returns masks, bitmaps or encoded ones, in COCO's run-length encoding: an array of dicts."""
    encoded = masks.runs if isinstance(masks, EncodedMasks) else encode_mask_results(np.asarray(masks))
    runs = np.empty(len(encoded), object)
    runs[:] = encoded
    return runs


def _placed(run: dict, place: np.ndarray, size: Sequence[int]) -> dict:
    """Returns the mask of a part as one of the whole picture.

    Args:
        run: The mask in run-length encoding.
        place: Left and top of the part, in pixels.
        size: Height and width of the picture.
    """
    left, top = place
    height, width = run['size']
    whole = np.zeros(size, np.uint8, order='F')
    whole[top:top + height, left:left + width] = coco_mask.decode(run)
    return coco_mask.encode(whole)


def _or_empty(values: np.ndarray | None) -> np.ndarray:
    return np.zeros(0) if values is None else values
