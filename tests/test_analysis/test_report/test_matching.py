"""Matching by hand-made boxes: curves, outcomes, confusion matrix; and pycocotools' numbers where it has them."""
from __future__ import annotations

import numpy as np
import pytest
from handmade_boxes import box, evaluate, thing, truth_of

from mmmamba.analysis.compare.evaluation import COCO_IOU_THRESHOLDS, class_precisions, evaluate_boxes
from mmmamba.analysis.report.matching import SCORES, best_score, confusion_matrix, outcomes, score_curves

LEFT, MIDDLE, RIGHT = (0, 0, 100, 100), (200, 0, 100, 100), (400, 0, 100, 100)


def at(score: float) -> int:
    return int(np.argmin(abs(SCORES - score)))


def test_curves_of_hand_made_boxes():
    """Class 1: two objects; found at 0.9, nothing at 0.6, found at 0.3. Class 2: one object, found at 0.5."""
    curves = score_curves(evaluate(
        [thing(1, LEFT), thing(1, MIDDLE), thing(2, LEFT, image=2)],
        [box(1, LEFT, 0.9), box(1, RIGHT, 0.6), box(1, MIDDLE, 0.3), box(2, LEFT, 0.5, image=2)]))
    for score, precision, recall in ((0, 2 / 3, 1), (0.29, 2 / 3, 1), (0.31, 1 / 2, 1 / 2), (0.59, 1 / 2, 1 / 2),
                                     (0.61, 1, 1 / 2), (0.89, 1, 1 / 2), (0.91, np.nan, 0)):
        assert curves.precision[0, at(score)] == pytest.approx(precision, nan_ok=True), score
        assert curves.recall[0, at(score)] == pytest.approx(recall), score
        assert curves.f1[0, at(score)] == pytest.approx(2 * precision * recall / (precision + recall) if recall else 0)
    assert curves.mean_f1[at(0.2)] == pytest.approx((0.8 + 1) / 2)
    assert curves.mean_recall[at(0.55)] == pytest.approx((0.5 + 0) / 2)
    assert curves.mean_precision[at(0.7)] == pytest.approx(1)  # class 2 has no detection left
    assert best_score(curves.f1[0]) == pytest.approx(0.14, abs=0.011)  # in the middle of 0 to 0.29


def test_a_score_is_counted_above_the_least_one():
    curves = score_curves(evaluate([thing(1, LEFT)], [box(1, LEFT, 0.5)]))
    assert curves.recall[0, at(0.49)] == 1 and curves.recall[0, at(0.5)] == 0


def test_a_class_without_objects_does_not_count_in_means():
    curves = score_curves(evaluate([thing(1, LEFT)], [box(1, LEFT, 0.9), box(2, LEFT, 0.8)]))
    assert np.isnan(curves.recall[1]).all() and np.isnan(curves.f1[1]).all()
    assert curves.precision[1, 0] == 0
    assert curves.mean_precision[0] == curves.mean_recall[0] == curves.mean_f1[0] == 1


def test_without_a_detection_nothing_is_found():
    curves = score_curves(evaluate([thing(1, LEFT)], []))
    assert (curves.f1[0] == 0).all() and np.isnan(curves.precision).all() and np.isnan(curves.mean_precision).all()


def test_outcomes_of_hand_made_boxes():
    things = [thing(1, LEFT), thing(2, MIDDLE), thing(1, RIGHT), thing(1, LEFT, image=2, crowd=True)]
    boxes = [box(1, LEFT, 0.9),                                # found
             box(1, LEFT, 0.8),                                # a duplicate
             box(1, MIDDLE, 0.7),                              # of another class
             box(1, (200, 0, 100, 90), 0.6),                   # the same, with a smaller overlap
             box(2, (400, 300, 50, 50), 0.5),                  # nothing
             box(1, RIGHT, 0.2),                               # below the score
             box(1, LEFT, 0.9, image=2), box(2, LEFT, 0.9, image=2)]  # a crowd is ignored, in its class alone
    first, second = outcomes(evaluate(things, boxes), 0.3)
    assert [(item['id'], truth['id']) for item, truth in first.found] == [(1, 1)]
    assert [(item['id'], truth['id']) for item, truth in first.confused] == [(3, 2)]
    assert [item['id'] for item in first.false] == [2, 4, 5]
    assert [truth['id'] for truth in first.missed] == [3]
    assert first.errors == 2 + 3 + 1
    assert not second.found and not second.missed and [item['id'] for item in second.false] == [8]
    assert confusion_matrix([first, second], [1, 2]).tolist() == [[1, 0, 1], [1, 0, 0], [2, 2, 0]]


def test_pairs_across_classes_take_the_largest_overlap_first():
    things = [thing(1, LEFT), thing(1, (30, 0, 100, 100))]
    boxes = [box(2, (20, 0, 100, 100), 0.9), box(2, (0, 0, 100, 100), 0.8)]
    result = outcomes(evaluate(things, boxes), 0.3)[0]
    assert {(item['id'], truth['id']) for item, truth in result.confused} == {(2, 1), (1, 2)}
    assert not result.missed and not result.false


@pytest.fixture(scope='module')
def random_case():
    """Sixty objects and some two hundred detections around them, with wrong classes and crowds."""
    rng = np.random.default_rng(0)
    things, boxes = [], []
    for number in range(60):
        category, image = int(rng.integers(1, 3)), int(rng.integers(1, 3))
        bbox = [*rng.integers(0, 400, 2).tolist(), *rng.integers(20, 120, 2).tolist()]
        things.append(thing(category, bbox, image, crowd=number % 15 == 0))
        for _ in range(int(rng.integers(0, 6))):
            moved = [*(np.array(bbox[:2]) + rng.normal(0, 8, 2)).tolist(), *bbox[2:]]
            boxes.append(box(category if rng.random() < 0.8 else 3 - category, moved, float(rng.random()), image))
    return truth_of(things), boxes


@pytest.mark.parametrize('score', [0.0, 0.25, 0.6])
def test_recall_is_that_of_pycocotools_for_the_detections_above_the_score(random_case, score):
    truth, boxes = random_case
    curves = score_curves(evaluate_boxes(truth, boxes))
    alone = evaluate_boxes(truth, [item for item in boxes if item['score'] > score])
    assert curves.recall[:, at(score)] == pytest.approx(alone.eval['recall'][0, :, 0, 0])


def test_the_matrix_has_the_counts_of_the_curves(random_case):
    truth, boxes = random_case
    evaluation = evaluate_boxes(truth, boxes, COCO_IOU_THRESHOLDS)
    curves, matrix = score_curves(evaluation), confusion_matrix(outcomes(evaluation, 0.4), [1, 2])
    hits = matrix.diagonal()[:2]
    assert hits / matrix[:2].sum(axis=1) == pytest.approx(curves.recall[:, at(0.4)])
    assert hits / matrix[:, :2].sum(axis=0) == pytest.approx(curves.precision[:, at(0.4)])
    assert matrix[0, 1] + matrix[1, 0] > 0 and matrix[2, 2] == 0
    objects = [sum(item['category_id'] == category and not item['iscrowd'] for item in truth['annotations'])
               for category in (1, 2)]
    assert matrix[:2].sum(axis=1).tolist() == objects


def test_precision_and_recall_lie_on_cocos_curve(random_case):
    truth, boxes = random_case
    evaluation = evaluate_boxes(truth, boxes)
    curves, precisions = score_curves(evaluation), class_precisions(evaluation)[0]
    for category in range(2):
        for precision, recall in zip(curves.precision[category], curves.recall[category]):
            if recall > 0:  # COCO's curve is the largest precision at this recall or more
                assert precision <= precisions[int(np.floor(recall * 100 + 1e-9)), category] + 1e-9
