from __future__ import annotations

import json

import numpy as np
import pytest
from handmade_boxes import box, evaluate, thing

from mmmamba.analysis.compare.evaluation import RECALLS, evaluate_boxes, mean_precision, read_truth

A, B = (0, 0, 100, 100), (200, 0, 100, 100)


def test_by_hand():
    # IoU of the second is 0.6: found at IoU 0.5 alone. Class 2 has nothing to find and does not count.
    evaluation = evaluate([thing(1, A), thing(1, B)],
                          [box(1, A, 0.9), box(1, (200, 0, 100, 60), 0.8), box(2, A, 0.7)])
    at_50, at_75 = mean_precision(evaluation)
    assert np.allclose(at_50, 1)
    assert np.allclose(at_75, RECALLS <= 0.5)


def test_recalls_are_those_of_coco():
    assert np.allclose(RECALLS, evaluate([thing(1, A)], []).params.recThrs)


def test_means_are_the_aps_of_coco(shared_coco_folder, make_run):
    annotations = shared_coco_folder / 'annotations' / 'train.json'
    run = make_run(annotations, 'a', 0, 0.8)
    precision = mean_precision(evaluate_boxes(read_truth(annotations), json.loads(run.detections.read_text())))
    expected = [run.metrics['coco/bbox_mAP_50'], run.metrics['coco/bbox_mAP_75']]
    assert 0.05 < expected[1] < expected[0] < 0.95
    assert precision.mean(axis=1) == pytest.approx(expected, abs=5.1e-4)
