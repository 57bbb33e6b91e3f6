from __future__ import annotations

import json

import pytest
from handmade_boxes import box, evaluate, thing

from mmmamba.analysis.compare.evaluation import evaluate_boxes, mean_precision, read_truth
from mmmamba.analysis.compare.tide import ERROR_TYPES, find_errors

A, B, FAR = (0, 0, 100, 100), (200, 0, 100, 100), (400, 400, 50, 50)
A_THIRD = (50, 0, 100, 100)  # IoU 1/3 with A
# One of two objects found; COCO asks at recalls 0, 0.01, …, 1, of which 51 are reached.
HALF = 51 / 101


def check(errors, ap50, **expected):
    """Compares AP50, and (count, cost) of each kind; those not named have no errors and cost nothing."""
    assert errors.ap50 == pytest.approx(ap50)
    for kind in ERROR_TYPES:
        count, cost = expected.get(kind, (0, 0))
        assert (errors.counts[kind], errors.costs[kind]) == (count, pytest.approx(cost, abs=1e-9)), kind


def test_no_error():
    check(find_errors(evaluate([thing(1, A)], [box(1, A, 0.9)])), 1)


def test_classification():
    # Class 1: nothing found. Class 2: a false one first, so precision 1/2.
    errors = find_errors(evaluate([thing(1, A), thing(2, B)], [box(2, A, 0.95), box(2, B, 0.9)]))
    check(errors, 0.25, classification=(1, 0.75))


def test_a_repair_counts_among_the_best_detections_of_its_image_and_class():
    """COCO's AP takes the first 100, in which the repaired one has its place by its score."""
    poor = [box(1, FAR, 0.1 + number / 1000) for number in range(150)]
    errors = find_errors(evaluate([thing(1, A)], [box(2, A, 0.9), *poor]))
    assert errors.ap50 == 0 and errors.counts['classification'] == 1 and errors.counts['background'] == 100
    assert errors.costs['classification'] == pytest.approx(1)


def test_localisation():
    check(find_errors(evaluate([thing(1, A)], [box(1, A_THIRD, 0.9)])), 0, localisation=(1, 1))


def test_both():
    # The object is missed as well: nothing explains it. Were it not asked for, class 1 would have AP 1.
    errors = find_errors(evaluate([thing(1, A), thing(2, B)], [box(2, A_THIRD, 0.95), box(2, B, 0.9)]))
    check(errors, 0.25, both=(1, 0.25), missed=(1, 0.5))


def test_duplicate():
    errors = find_errors(evaluate([thing(1, A), thing(1, B)], [box(1, A, 0.9), box(1, A, 0.8), box(1, B, 0.7)]))
    ap50 = (51 + 50 * 2 / 3) / 101
    check(errors, ap50, duplicate=(1, 1 - ap50))


def test_background():
    check(find_errors(evaluate([thing(1, A)], [box(1, FAR, 0.95), box(1, A, 0.9)])), 0.5, background=(1, 0.5))


def test_background_in_an_image_without_objects():
    errors = find_errors(evaluate([thing(1, A)], [box(1, A, 0.95, image=2), box(1, A, 0.9)]))
    check(errors, 0.5, background=(1, 0.5))


def test_missed():
    check(find_errors(evaluate([thing(1, A), thing(1, B)], [box(1, A, 0.9)])), HALF, missed=(1, 1 - HALF))


def test_missed_in_an_image_without_detections():
    errors = find_errors(evaluate([thing(1, A), thing(1, A, image=2)], [box(1, A, 0.9)]))
    check(errors, HALF, missed=(1, 1 - HALF))


def test_no_detections_at_all():
    check(find_errors(evaluate([thing(1, A), thing(2, B)], [])), 0, missed=(2, 1))


def test_class_of_which_everything_is_missed_is_as_precise_as_its_detections():
    check(find_errors(evaluate([thing(1, A)], [box(1, FAR, 0.9)])), 0, background=(1, 0), missed=(1, 0))


def test_crowds_are_neither_missed_nor_explain_anything():
    truth = [thing(1, A), thing(1, FAR, crowd=True)]
    inside = box(1, (410, 410, 10, 10), 0.95)
    check(find_errors(evaluate(truth, [inside, box(1, A, 0.9)])), 1)
    other_class = [thing(2, B), box(2, (410, 410, 50, 40), 0.95), box(2, B, 0.9)]
    errors = find_errors(evaluate([*truth, other_class[0]], [box(1, A, 0.9), *other_class[1:]]))
    check(errors, 0.75, background=(1, 0.25))


def test_a_second_label_of_a_found_object_is_dropped():
    truth = [thing(1, A), thing(2, B)]
    errors = find_errors(evaluate(truth, [box(1, A, 0.9), box(2, A, 0.8), box(2, B, 0.7)]))
    check(errors, 0.75, classification=(1, 0.25))


def test_a_repaired_error_takes_the_place_of_a_detection_of_lower_score():
    # Repaired, A is found at 0.95, before B's false one at 0.9: precision 1 up to recall 1/2, then 2/3.
    truth = [thing(1, A), thing(1, B)]
    found = [box(1, A_THIRD, 0.95), box(1, FAR, 0.9), box(1, A, 0.5), box(1, B, 0.4)]
    before, after = 0.5, (51 + 50 * 2 / 3) / 101
    check(find_errors(evaluate(truth, found)), before, localisation=(1, after - before),
          background=(1, 2 / 3 - before))


def test_of_several_errors_with_one_object_the_best_is_repaired():
    errors = find_errors(evaluate([thing(1, A)], [box(1, A_THIRD, 0.9), box(1, (-50, 0, 100, 100), 0.8)]))
    check(errors, 0, localisation=(2, 1))


@pytest.mark.parametrize('right, wrong, kind', [
    ((0, 0, 100, 30), (0, 0, 100, 60), 'classification'),  # IoU 0.3 with the right class, 0.6 with another
    ((0, 0, 100, 50), (0, 0, 100, 90), None),  # 0.5 finds it
    ((0, 0, 100, 30), (0, 0, 100, 40), 'localisation'),
    ((0, 0, 100, 10), FAR, 'localisation'),  # 0.1 is not background yet
    ((0, 0, 100, 9), FAR, 'background'),
    (FAR, (0, 0, 100, 50), 'classification'),
    (FAR, (0, 0, 100, 49), 'both'),
    (FAR, (0, 0, 100, 9), 'background'),
])
def test_overlap_decides_and_a_good_one_goes_first(right, wrong, kind):
    errors = find_errors(evaluate([thing(1, right), thing(2, wrong)], [box(1, A, 0.9)]))
    named = [name for name in ERROR_TYPES if name != 'missed' and errors.counts[name]]
    assert named == ([kind] if kind else [])


def test_duplicate_goes_before_classification():
    errors = find_errors(evaluate([thing(1, A), thing(2, A)], [box(1, A, 0.9), box(1, A, 0.8), box(2, A, 0.7)]))
    assert errors.counts['duplicate'] == 1 and errors.counts['classification'] == 0


def test_annotation_0_can_be_found():
    check(find_errors(evaluate([{**thing(1, A), 'id': 0}], [box(1, A, 0.9)])), 1)


@pytest.mark.parametrize('skill', [0.3, 0.6, 0.9])
def test_on_many_detections(shared_coco_folder, make_run, skill):
    annotations = shared_coco_folder / 'annotations' / 'train.json'
    run = make_run(annotations, 'a', 0, skill)
    truth, detections = read_truth(annotations), json.loads(run.detections.read_text())
    evaluation = evaluate_boxes(truth, detections)
    errors = find_errors(evaluation)
    assert errors.ap50 == pytest.approx(run.metrics['coco/bbox_mAP_50'], abs=5.1e-4)  # which is rounded
    assert all(cost >= 0 for cost in errors.costs.values())
    found = sum(int((entry['dtMatches'][0] > 0).sum()) for entry in evaluation.evalImgs if entry)
    assert sum(errors.counts.values()) - errors.counts['missed'] == len(detections) - found

    # What is dropped never matched anything, so COCO's own evaluation without it must agree.
    elsewhere = [item for item in detections if all(
        overlap(item['bbox'], other['bbox']) < 0.1 for other in truth['annotations']
        if other['image_id'] == item['image_id'])]
    rest = evaluate_boxes(truth, [item for item in detections if item not in elsewhere])
    assert errors.counts['background'] == len(elsewhere) > 0
    assert mean_precision(rest)[0].mean() == pytest.approx(errors.ap50 + errors.costs['background'])


def overlap(first, second):
    (x1, y1, w1, h1), (x2, y2, w2, h2) = first, second
    width, height = min(x1 + w1, x2 + w2) - max(x1, x2), min(y1 + h1, y2 + h2) - max(y1, y2)
    shared = max(width, 0) * max(height, 0)
    return shared / (w1 * h1 + w2 * h2 - shared)
