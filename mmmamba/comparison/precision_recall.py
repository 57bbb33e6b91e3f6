"""Precision-recall curves of COCO's evaluation."""
from __future__ import annotations

import numpy as np
from pycocotools.cocoeval import COCOeval

from mmmamba.comparison.box_evaluation import class_precisions

RECALLS = np.linspace(0, 1, 101)
"""Where COCO's evaluation samples the curves."""


def mean_precision(evaluation: COCOeval) -> np.ndarray:
    """Averages the curves of the classes; the mean of such a curve is the AP at that IoU.

    Args:
        evaluation: What ``evaluate_boxes`` returned.

    Returns:
        Precision at :data:`RECALLS`, (IoUs, 101) in [0, 1], over the classes that have something to find.
    """
    precisions = class_precisions(evaluation)
    return np.ma.masked_less(precisions, 0).mean(axis=2).data
