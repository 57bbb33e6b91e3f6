"""COCO's evaluation of boxes at IoU 0.5 and 0.75, from which error types and precision-recall curves are read."""
from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmmamba.datasets.coco_checks import check_classes, read_annotations
from mmmamba.datasets.coco_objects import check_objects
from mmmamba.errors import InputError

IOU_THRESHOLDS = (0.5, 0.75)
COCO_IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10))
"""Over which COCO's AP is the mean."""
MAX_DETECTIONS = 100
"""Of an image and a class: as many as COCO's AP counts."""
RECALLS = np.linspace(0, 1, 101)
"""Where the evaluation samples precision-recall curves."""


def read_truth(path: Path, classes: Sequence[str] | None = None) -> dict:
    """Reads and checks the annotations of a test set, as ``CheckedCocoDataset`` does.

    Args:
        path: The COCO json.
        classes: Names of the categories that the detectors know, in their order; None for all that the file has.

    Returns:
        Its content, without what is of other categories.

    Raises:
        InputError: If it is malformed, lacks a class, or has nothing to detect.
    """
    truth = read_annotations(str(path), for_evaluation=True)
    if classes is None:
        classes = [item['name'] for item in truth['categories']]
    check_classes(truth, classes, str(path))
    check_objects(truth, classes, str(path), for_evaluation=True)
    truth['categories'] = [item for item in truth['categories'] if item['name'] in classes]
    known = {item['id'] for item in truth['categories']}
    truth['annotations'] = [item for item in truth['annotations'] if item['category_id'] in known]
    return truth


def read_detections(path: Path, truth: dict) -> list[dict]:
    """Reads and checks a COCO results file.

    Args:
        path: The json.
        truth: What :func:`read_truth` returned.

    Returns:
        Entries of ``image_id``, ``category_id``, ``bbox`` (x, y, width, height) and ``score``.

    Raises:
        InputError: If it is malformed or of another data set.
    """
    try:
        detections = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise InputError(f'no such file of detections: {path}') from None
    except ValueError as error:
        raise InputError(f'{path} is not valid JSON: {error}') from None
    if not isinstance(detections, list):
        raise InputError(f'{path} is no list of detections')
    known = {'image_id': {item['id'] for item in truth['images']},
             'category_id': {item['id'] for item in truth['categories']}}
    for number, item in enumerate(detections):
        try:
            finite = all(math.isfinite(value) for value in (*item['bbox'], item['score']))
            usable = finite and len(item['bbox']) == 4 and all(item[key] in ids for key, ids in known.items())
        except (KeyError, TypeError, OverflowError):
            usable = False
        if not usable:
            raise InputError(f'{path}: detection {number} is not one of an image and a category of the test set, with '
                             f'four finite numbers and a score: {str(item)[:80]}')
    return detections


def evaluate_boxes(truth: dict, detections: Sequence[dict],
                   iou_thresholds: Sequence[float] = IOU_THRESHOLDS) -> COCOeval:
    """Matches detections with the truth and makes the precision-recall curves.

    Args:
        truth: What :func:`read_truth` returned.
        detections: What :func:`read_detections` returned.
        iou_thresholds: The first is 0.5, which error types are read at.

    Returns:
        The evaluation at these IoUs, over all areas, accumulated.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # COCOeval prints its progress
        evaluation = COCOeval(_index(truth, truth['annotations']), _index(truth, [
            {'iscrowd': 0, 'area': item['bbox'][2] * item['bbox'][3],
             **{key: item[key] for key in ('image_id', 'category_id', 'bbox', 'score')}} for item in detections
        ]), 'bbox')
        params = evaluation.params
        params.iouThrs = np.array(iou_thresholds)
        params.areaRng, params.areaRngLbl = params.areaRng[:1], params.areaRngLbl[:1]
        params.maxDets = [MAX_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def class_precisions(evaluation: COCOeval) -> np.ndarray:
    """Returns precision at recalls 0, 0.01, …, 1: (IoUs, 101, classes); -1 for a class without a box to find."""
    return evaluation.eval['precision'][..., 0, 0]


def mean_precision(evaluation: COCOeval) -> np.ndarray:
    """Averages the curves of the classes; the mean of such a curve is the AP at that IoU.

    Args:
        evaluation: What ``evaluate_boxes`` returned.

    Returns:
        Precision at :data:`RECALLS`, (IoUs, 101) in [0, 1], over the classes that have something to find.
    """
    precisions = class_precisions(evaluation)
    return np.ma.masked_less(precisions, 0).mean(axis=2).data


def _index(truth: dict, annotations: Sequence[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {'images': truth['images'], 'categories': truth['categories'],
                    'annotations': [{**item, 'id': number} for number, item in enumerate(annotations, start=1)]}
    coco.createIndex()
    return coco
