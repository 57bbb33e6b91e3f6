"""What goes wrong in a detector's results, and what each kind of error costs.

The kinds are those of TIDE (Bolya et al., ECCV 2020, arXiv 2008.08115, section 2.2), with its IoU thresholds of 0.5
(foreground) and 0.1 (background). Where several fit a detection, the first of this order is taken: duplicate,
classification, localisation, both, background. The package tidecv sorts and repairs some detections otherwise, and has
no negative costs: its figures are not quite the same.
"""
from __future__ import annotations

import contextlib
import copy
import io
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from mmmamba.analysis.compare.evaluation import class_precisions

FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.1
ERROR_TYPES: Mapping[str, str] = MappingProxyType({
    'classification': 'IoU ≥ 0.5 with an object of another class',
    'localisation': 'right class, 0.1 ≤ IoU < 0.5',
    'both': 'wrong class and 0.1 ≤ IoU < 0.5',
    'duplicate': 'right class and IoU ≥ 0.5, but a detection of higher score has found the object',
    'background': 'IoU < 0.1 with every object',
    'missed': 'an object that was not found, and that no classification or localisation error explains',
})
"""Kind → what it means."""


@dataclass(frozen=True)
class DetectionErrors:
    """The errors of one results file, over the best 100 detections of each image and class, whatever their scores.

    Args:
        ap50: AP at IoU 0.5 as it is, in [0, 1].
        counts: Kind → number of errors.
        costs: Kind → AP50 that would be gained were all errors of this kind alone repaired (TIDE's dAP).
    """
    ap50: float
    counts: Mapping[str, int]
    costs: Mapping[str, float]


@dataclass(frozen=True)
class FalsePositive:
    """A detection, by its id, that found nothing; ``target`` is the annotation that its repair would find, if any."""
    detection: int
    kind: str
    target: int | None


def find_errors(evaluation: COCOeval, wrong: Sequence[FalsePositive] | None = None) -> DetectionErrors:
    """Sorts a detector's errors into kinds and prices each kind.

    Repairs are TIDE's: a classification or localisation error becomes a detection of its object, where it has a higher
    score than the others of this object (which are dropped), and is dropped where not; the errors of both, duplicate
    and background are dropped; missed objects are no longer asked for. A class of which all objects are missed then
    has AP 1 where nothing was detected as it, else 0. Crowds are ignored as COCO does.

    Args:
        evaluation: What ``evaluate_boxes`` returned.
        wrong: What :func:`false_positives` returned for it, if that is known already.

    Returns:
        Numbers and costs.
    """
    wrong = false_positives(evaluation) if wrong is None else wrong
    finders = _finders(evaluation)
    targets = {item.target for item in wrong}
    missed = {truth for truth, finder in finders.items() if not finder and truth not in targets}

    ap50 = _mean_ap50(evaluation)
    counts, costs = {}, {}
    for kind in ERROR_TYPES:
        if kind == 'missed':
            counts[kind] = len(missed)
            repaired = _edited(evaluation, ignored=missed)
        else:
            errors = [item for item in wrong if item.kind == kind]
            counts[kind] = len(errors)
            repaired = _repair(evaluation, errors, finders)
        costs[kind] = _mean_ap50(repaired, like=evaluation) - ap50
    return DetectionErrors(ap50, MappingProxyType(counts), MappingProxyType(costs))


def _matches(evaluation: COCOeval) -> Iterable[dict]:
    """COCOeval's matches, one entry an image and class; row 0 of its tables is IoU 0.5."""
    return (entry for entry in evaluation.evalImgs if entry is not None)


def _finders(evaluation: COCOeval) -> dict[int, int]:
    """Returns each annotation that is no crowd → the detection that found it, or 0."""
    return {truth: int(finder) for entry in _matches(evaluation)
            for truth, finder, ignored in zip(entry['gtIds'], entry['gtMatches'][0], entry['gtIgnore']) if not ignored}


def false_positives(evaluation: COCOeval) -> list[FalsePositive]:
    """Sorts the detections that found nothing into kinds.

    Args:
        evaluation: What ``evaluate_boxes`` returned.
    """
    wrong: dict[int, list[dict]] = defaultdict(list)
    for entry in _matches(evaluation):
        unmatched = (entry['dtMatches'][0] == 0) & ~entry['dtIgnore'][0].astype(bool)
        wrong[entry['image_id']] += [evaluation.cocoDt.anns[entry['dtIds'][i]] for i in np.flatnonzero(unmatched)]
    found = []
    for image, detections in wrong.items():
        truths = [item for item in evaluation.cocoGt.imgToAnns[image] if not item['iscrowd']]
        if detections and truths:
            ious = coco_mask.iou([item['bbox'] for item in detections], [item['bbox'] for item in truths],
                                 [0] * len(truths))
        else:
            ious = np.zeros((len(detections), 0))
        categories = np.array([item['category_id'] for item in truths])
        for detection, row in zip(detections, ious):
            kind, index = _explain(row, categories == detection['category_id'])
            target = truths[index]['id'] if kind in ('classification', 'localisation') else None
            found.append(FalsePositive(detection['id'], kind, target))
    return found


def _explain(ious: np.ndarray, right: np.ndarray) -> tuple[str, int]:
    """Names the error of a detection and the object that explains it.

    Args:
        ious: With every object of the image, (objects,).
        right: Which of them are of the detection's class, (objects,) bool.

    Returns:
        Kind, and index of the object (-1 if there is none).
    """
    for threshold, kinds in ((FOREGROUND_IOU, ('duplicate', 'classification')),
                             (BACKGROUND_IOU, ('localisation', 'both'))):
        for kind, candidates in zip(kinds, (right, ~right)):
            overlaps = np.where(candidates, ious, 0)
            if overlaps.max(initial=0) >= threshold:
                return kind, int(overlaps.argmax())
    return 'background', -1


def _repair(evaluation: COCOeval, errors: Iterable[FalsePositive], finders: Mapping[int, int]) -> COCOeval:
    """Drops the errors, or lets those with a target find it."""
    anns = evaluation.cocoDt.anns
    dropped: set[int] = set()
    best: dict[int, float] = {}
    for item in errors:
        dropped.add(item.detection)
        if item.target is not None:
            score = anns[item.detection]['score']
            best[item.target] = max(best.get(item.target, score), score)
    found: dict[tuple[int, int], list[float]] = defaultdict(list)
    for target, score in best.items():
        finder = finders[target]
        if not finder or anns[finder]['score'] < score:
            dropped.add(finder)
            truth = evaluation.cocoGt.anns[target]
            found[truth['image_id'], truth['category_id']].append(score)
    return _edited(evaluation, dropped, found)


def _edited(evaluation: COCOeval, dropped: Collection[int] = (),
            found: Mapping[tuple[int, int], list[float]] = MappingProxyType({}),
            ignored: Collection[int] = ()) -> COCOeval:
    """Changes the matches of an evaluation and accumulates again, so that COCOeval makes the new AP.

    Args:
        evaluation: The evaluation, which stays as it is.
        dropped: Detections that are taken out.
        found: (image, category) → scores of additional detections there, each of an object of its own.
        ignored: Annotations that are no longer asked for.

    Returns:
        One at IoU 0.5 alone.
    """
    edited = copy.copy(evaluation)
    edited.params = copy.copy(evaluation.params)
    edited.params.iouThrs = evaluation.params.iouThrs[:1]
    edited.evalImgs = []
    for entry in evaluation.evalImgs:
        if entry is not None:
            kept = np.array([detection not in dropped for detection in entry['dtIds']], bool)
            extra = found.get((entry['image_id'], entry['category_id']), [])
            scores = np.hstack([np.array(entry['dtScores'])[kept], extra])
            order = np.argsort(-scores, kind='stable')  # COCOeval takes the first 100
            entry = {
                'dtScores': scores[order],
                'dtMatches': np.hstack([entry['dtMatches'][:1, kept], np.ones((1, len(extra)))])[:, order],
                'dtIgnore': np.hstack([entry['dtIgnore'][:1, kept], np.zeros((1, len(extra)), bool)])[:, order],
                'gtIgnore': np.array([old or truth in ignored
                                      for truth, old in zip(entry['gtIds'], entry['gtIgnore'])]),
            }
        edited.evalImgs.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        edited.accumulate()
    return edited


def _mean_ap50(evaluation: COCOeval, like: COCOeval | None = None) -> float:
    """Averages AP50 over the classes that have something to find, in ``like`` where it is given."""
    aps = class_precisions(evaluation)[0].mean(axis=0)
    if like is None:
        return float(aps[aps > -1].mean())
    asked = class_precisions(like)[0].mean(axis=0) > -1
    detected = {entry['category_id'] for entry in _matches(like) if not entry['dtIgnore'][0].all()}
    emptied = [0.0 if category in detected else 1.0 for category in like.params.catIds]
    return float(np.where(aps > -1, aps, emptied)[asked].mean())
