"""A tested detector, and everything its report shows, computed once from its detections."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from mmmamba.analysis.compare.evaluation import (
    COCO_IOU_THRESHOLDS,
    class_precisions,
    evaluate_boxes,
    read_detections,
)
from mmmamba.analysis.compare.tide import DetectionErrors, FalsePositive, false_positives, find_errors
from mmmamba.analysis.report.matching import (
    SCORES,
    ImageOutcome,
    ScoreCurves,
    best_score,
    confusion_matrix,
    outcomes,
    score_curves,
)

SIZES = (('small', 0, 32**2), ('medium', 32**2, 96**2), ('large', 96**2, math.inf))
"""COCO's: name, and the areas of objects in square pixels."""


@dataclass(frozen=True)
class EvaluatedRun:
    """A detector that was tested.

    Args:
        title: Of the report.
        config: As the user named it.
        checkpoint: As the user named it.
        command: The call that makes the report again.
        truth: What ``read_truth`` returned.
        images: The folder of the images.
        detections: CocoMetric's ``*.bbox.json``.
        metrics: CocoMetric's, under its own keys.
        settings: What else is told of the run, to be listed.
        config_text: The whole config.
    """
    title: str
    config: str
    checkpoint: str
    command: str
    truth: dict
    images: Path
    detections: Path
    metrics: Mapping[str, float]
    settings: Mapping[str, str]
    config_text: str

    def metric(self, name: str) -> float:
        """Returns a metric such as ``'bbox_mAP_50'``; NaN for one that COCO gives as -1, as there is no such object.

        Without a single detection CocoMetric has no metrics, and all AP is zero.
        """
        value = self.metrics.get(f'coco/{name}', 0.0)
        return value if value >= 0 else float('nan')

    @property
    def has_masks(self) -> bool:
        """Returns whether masks were evaluated."""
        return 'coco/segm_mAP' in self.metrics


@dataclass(frozen=True)
class Results:
    """What the detections of a run tell; boxes alone, at IoU 0.5 unless said otherwise.

    Args:
        names: Of the classes, in the order of all rows and columns.
        score: The least score with the best mean F1.
        curves: Precision, recall and F1 against the least score.
        precisions: At recalls 0, 0.01, …, 1, (101, classes); -1 for a class without an object.
        ap: Of each class over IoU 0.50:0.95, NaN for one without an object.
        ap50: Of each class.
        outcomes: Of every image at ``score``.
        matrix: The confusion matrix at ``score``, (classes + 1, classes + 1).
        errors: By kind.
        sizes: Name → number of objects, and how many of them are found at ``score``.
        unlabelled: Detections above ``score`` with IoU < 0.1 with every object (TIDE's background errors), the highest
            scores first: an object may be there that has no label.
    """
    names: tuple[str, ...]
    score: float
    curves: ScoreCurves
    precisions: np.ndarray
    ap: np.ndarray
    ap50: np.ndarray
    outcomes: Sequence[ImageOutcome]
    matrix: np.ndarray
    errors: DetectionErrors
    sizes: Mapping[str, tuple[int, int]]
    unlabelled: Sequence[dict]

    @property
    def index(self) -> int:
        """Returns where ``score`` is in the curves."""
        return int(np.abs(SCORES - self.score).argmin())

    def class_records(self) -> list[dict[str, Any]]:
        """Returns a record for each class: counts, AP, and precision, recall and F1 at ``score``; shares in [0, 1].

        What a class does not have, as it has no object or no detection, or none that is right, is None.
        """
        records = []
        for row, name in enumerate(self.names):
            f1 = self.curves.f1[row]
            values = {'ap': self.ap[row], 'ap50': self.ap50[row], 'precision': self.curves.precision[row, self.index],
                      'recall': self.curves.recall[row, self.index], 'f1': f1[self.index],
                      'own_best_score': best_score(f1) if (f1 > 0).any() else float('nan')}
            records.append({'class': name, 'objects': int(self.matrix[row].sum()),
                            'detections': int(self.matrix[:, row].sum()),
                            **{key: None if np.isnan(value) else round(float(value), 4)
                               for key, value in values.items()}})
        return records

    def summary(self) -> dict[str, float]:
        """Returns precision, recall and F1 at ``score``: means over the classes with objects; NaN if undefined."""
        curves = self.curves
        return {name: float(curve[self.index]) for name, curve in (
            ('precision', curves.mean_precision), ('recall', curves.mean_recall), ('f1', curves.mean_f1))}


def analyse(run: EvaluatedRun) -> Results:
    """Matches the detections of a run once and derives everything from it.

    Raises:
        InputError: The file of detections is missing or malformed.
    """
    evaluation = evaluate_boxes(run.truth, read_detections(run.detections, run.truth), COCO_IOU_THRESHOLDS)
    names = {item['id']: item['name'] for item in run.truth['categories']}
    categories = list(evaluation.params.catIds)
    curves, precisions = score_curves(evaluation), class_precisions(evaluation)
    score = best_score(curves.mean_f1)
    found, wrong = outcomes(evaluation, score), false_positives(evaluation)
    known = precisions[0, 0] > -1
    return Results(
        tuple(names[category] for category in categories), score, curves, precisions[0],
        np.where(known, precisions.mean(axis=(0, 1)), np.nan), np.where(known, precisions[0].mean(axis=0), np.nan),
        found, confusion_matrix(found, categories), find_errors(evaluation, wrong), _by_size(found),
        _unlabelled(evaluation, wrong, score))


def _unlabelled(evaluation: COCOeval, wrong: Sequence[FalsePositive], score: float) -> list[dict]:
    detections = [evaluation.cocoDt.anns[item.detection] for item in wrong if item.kind == 'background']
    return sorted((item for item in detections if item['score'] > score), key=lambda item: -item['score'])


def _by_size(results: Sequence[ImageOutcome]) -> dict[str, tuple[int, int]]:
    found = [truth['area'] for result in results for _, truth in result.found]
    others = [truth['area'] for result in results
              for truth in (*result.missed, *(truth for _, truth in result.confused))]
    counts = {}
    for name, least, most in SIZES:
        hits = sum(least <= area < most for area in found)
        counts[name] = (hits + sum(least <= area < most for area in others), hits)
    return counts
