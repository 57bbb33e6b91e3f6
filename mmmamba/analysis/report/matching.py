"""What a detector finds and misses at every score: precision, recall and F1, outcomes by image, confusion matrix.

Detections are matched with objects at IoU 0.5, as COCO's evaluation does it: best scores first, each to the object of
its class that it overlaps most and that no better one has found. Those of lower scores change nothing for the others,
so that one matching holds for every least score. Crowds are ignored as COCO does.
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

IOU = 0.5
SCORES = np.linspace(0, 1, 101)
"""Least scores at which curves are computed: hundredths, so that the best one can be typed."""


@dataclass(frozen=True)
class ScoreCurves:
    """Precision, recall and F1 of each class, (classes, 101), counting detections with a score above :data:`SCORES`.

    Args:
        precision: Share of the detections that find an object; NaN where there is no detection.
        recall: Share of the objects that are found; NaN for a class without an object.
        f1: 2 precision · recall / (precision + recall), 0 where nothing is found; NaN for a class without an object.
    """
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    @property
    def mean_f1(self) -> np.ndarray:
        """Returns the mean over the classes that have objects, (101,)."""
        return _mean_of_known(self.f1)

    @property
    def mean_precision(self) -> np.ndarray:
        """Returns the mean over the classes that have objects and detections, (101,); NaN if there is none."""
        return _mean_of_known(np.where(np.isnan(self.recall), np.nan, self.precision))

    @property
    def mean_recall(self) -> np.ndarray:
        """Returns the mean over the classes that have objects, (101,)."""
        return _mean_of_known(self.recall)


@dataclass(frozen=True)
class ImageOutcome:
    """What becomes of one image's detections and objects at a score, as COCO entries.

    Args:
        image: Its id.
        found: Detections with the object of their class that each finds.
        confused: Detections with an object of another class at IoU 0.5 or more, each in one pair at most.
        false: Detections of nothing.
        missed: Objects that no detection of any class finds.
    """
    image: int
    found: tuple[tuple[dict, dict], ...]
    confused: tuple[tuple[dict, dict], ...]
    false: tuple[dict, ...]
    missed: tuple[dict, ...]

    @property
    def errors(self) -> int:
        """Returns the number of objects that are not found plus that of detections that find none."""
        return 2 * len(self.confused) + len(self.false) + len(self.missed)


def score_curves(evaluation: COCOeval) -> ScoreCurves:
    """Computes the curves of each class.

    Args:
        evaluation: What ``evaluate_boxes`` returned; its first IoU is 0.5.
    """
    curves = []
    entries = _by_category(evaluation)
    for category in evaluation.params.catIds:
        scores = np.array([score for entry in entries[category] for score in _asked(entry, entry['dtScores'])])
        right = np.array([match > 0 for entry in entries[category] for match in _asked(entry, entry['dtMatches'][0])])
        objects = sum(int(np.sum(np.logical_not(entry['gtIgnore']))) for entry in entries[category])
        order = np.argsort(scores, kind='stable')
        # Number of detections above each least score, and of those that find an object.
        below = np.searchsorted(scores[order], SCORES, side='right')
        detected = len(scores) - below
        found = np.append(np.cumsum(right[order][::-1])[::-1], 0)[below]
        with np.errstate(invalid='ignore', divide='ignore'):
            recall = found / objects if objects else np.full(len(SCORES), np.nan)
            curves.append((found / detected, recall, 2 * found / (detected + objects) + 0 * recall))
    return ScoreCurves(*map(np.array, zip(*curves)))


def best_score(f1: np.ndarray) -> float:
    """Returns the least score with the largest F1; of several, the middle one, which small changes spare.

    Args:
        f1: At :data:`SCORES`, (101,).
    """
    best = np.flatnonzero(f1 == np.nanmax(f1))
    return float(SCORES[best[len(best) // 2]])


def outcomes(evaluation: COCOeval, score: float) -> list[ImageOutcome]:
    """Sorts the detections of a score above ``score``, and the objects, of every image.

    What is left once detections have found objects of their class is paired across classes: largest overlaps first,
    each detection and object once.

    Args:
        evaluation: What ``evaluate_boxes`` returned; its first IoU is 0.5.
        score: Least score.

    Returns:
        One an image, in the order of the evaluation.
    """
    entries = defaultdict(list)
    for entry in _entries(evaluation):
        entries[entry['image_id']].append(entry)
    return [_outcome(evaluation, int(image), entries[image], score) for image in evaluation.params.imgIds]


def confusion_matrix(results: Iterable[ImageOutcome], categories: Sequence[int]) -> np.ndarray:
    """Counts objects (rows) by what they are detected as (columns); the last of both is the background.

    A row's sum is the number of objects of a class, a column's that of detections; the diagonal over them is the
    recall and the precision that :func:`score_curves` has at this score.

    Args:
        results: What :func:`outcomes` returned.
        categories: Ids, in the order of the rows.

    Returns:
        (classes + 1, classes + 1) integers.
    """
    row = {category: number for number, category in enumerate(categories)}
    background = len(row)
    matrix = np.zeros((background + 1, background + 1), int)
    for result in results:
        for detection, truth in (*result.found, *result.confused):
            matrix[row[truth['category_id']], row[detection['category_id']]] += 1
        for detection in result.false:
            matrix[background, row[detection['category_id']]] += 1
        for truth in result.missed:
            matrix[row[truth['category_id']], background] += 1
    return matrix


def _outcome(evaluation: COCOeval, image: int, entries: Sequence[dict], score: float) -> ImageOutcome:
    truths, detections = evaluation.cocoGt.anns, evaluation.cocoDt.anns
    found, wrong = [], []
    for entry in entries:
        for detection, match, value in zip(*(_asked(entry, column) for column in (
                entry['dtIds'], entry['dtMatches'][0], entry['dtScores']))):
            if value > score and match:
                found.append((detections[detection], truths[int(match)]))
            elif value > score:
                wrong.append(detections[detection])
    taken = {truth['id'] for _, truth in found}
    left = [truth for truth in evaluation.cocoGt.imgToAnns[image] if not truth['iscrowd'] and truth['id'] not in taken]
    confused = _pairs(wrong, left)
    of_others = {item['id'] for item, _ in confused}, {truth['id'] for _, truth in confused}
    return ImageOutcome(image, tuple(found), tuple(confused),
                        tuple(item for item in wrong if item['id'] not in of_others[0]),
                        tuple(truth for truth in left if truth['id'] not in of_others[1]))


def _pairs(detections: Sequence[dict], truths: Sequence[dict]) -> list[tuple[dict, dict]]:
    """Pairs detections and objects of different classes, largest overlap first."""
    if not detections or not truths:
        return []
    ious = coco_mask.iou([item['bbox'] for item in detections], [item['bbox'] for item in truths], [0] * len(truths))
    same = (np.array([item['category_id'] for item in detections])[:, None]
            == np.array([item['category_id'] for item in truths]))
    ious[same] = 0
    pairs = []
    used: tuple[set[int], set[int]] = (set(), set())
    for index in np.argsort(-ious, axis=None, kind='stable'):
        row, column = (int(number) for number in np.unravel_index(index, ious.shape))
        if ious[row, column] < IOU:
            break
        if row not in used[0] and column not in used[1]:
            pairs.append((detections[row], truths[column]))
            used[0].add(row)
            used[1].add(column)
    return pairs


def _entries(evaluation: COCOeval) -> Iterator[dict]:
    """Yields COCOeval's matches, one entry an image and class; row 0 of its tables is IoU 0.5."""
    return (entry for entry in evaluation.evalImgs if entry is not None)


def _by_category(evaluation: COCOeval) -> dict[int, list[dict]]:
    entries = defaultdict(list)
    for entry in _entries(evaluation):
        entries[entry['category_id']].append(entry)
    return entries


def _asked(entry: dict, column: Iterable) -> list:
    """Returns what a column has of the detections that COCO does not ignore."""
    return [value for value, ignored in zip(column, entry['dtIgnore'][0]) if not ignored]


def _mean_of_known(curves: np.ndarray) -> np.ndarray:
    known = ~np.isnan(curves)
    number = known.sum(axis=0)
    return np.where(number > 0, np.where(known, curves, 0).sum(axis=0) / np.maximum(number, 1), np.nan)
