from __future__ import annotations

import json

import pytest
from handmade_boxes import box, thing, truth_of

from mmmamba.analysis.compare.evaluation import read_detections, read_truth
from mmmamba.errors import InputError

A = (0, 0, 100, 100)


@pytest.mark.parametrize('content, message', [
    ('{', 'not valid JSON'),
    ('{}', 'no list of detections'),
    ('[1]', 'detection 0 is not one'),
    ([{**box(1, A, 0.5), 'image_id': 7}], 'detection 0 is not one of an image and a category of the test set'),
    ([box(1, A, 0.5), {**box(1, A, 0.5), 'category_id': 3}], 'detection 1 is not one'),
    ([box(1, (1, 2, 3), 0.5)], 'four finite numbers'),
    ([box(1, A, float('nan'))], 'and a score'),
    ([{**box(1, A, 0.5), 'image_id': []}], 'detection 0 is not one'),
], ids=lambda value: value[:20] if isinstance(value, str) else 'boxes')
def test_malformed_detections_get_one_line(tmp_path, content, message):
    path = tmp_path / 'results.bbox.json'
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        read_detections(path, truth_of([thing(1, A)]))
    assert 'results.bbox.json' in str(caught.value) and '\n' not in str(caught.value)


def test_missing_detections_get_one_line(tmp_path):
    with pytest.raises(InputError, match='no such file of detections'):
        read_detections(tmp_path / 'none.json', truth_of([thing(1, A)]))


@pytest.mark.parametrize('change, message', [
    ({'annotations': []}, 'has no annotations'),
    ({'annotations': [{'id': 1, **thing(1, A, crowd=True)}]}, 'nothing to detect: its annotations are: 1 crowds'),
    ({'annotations': [{'id': 0, **thing(1, A)}]}, 'annotation 0: .*number them from 1'),
    ({'images': [{'id': 1, 'file_name': '../1.png', 'width': 6, 'height': 4}]}, 'leads out of the image folder'),
])
def test_truth_that_cannot_serve_gets_one_line(tmp_path, change, message):
    path = tmp_path / 'test.json'
    path.write_text(json.dumps({**truth_of([thing(1, A)]), **change}))
    with pytest.raises(InputError, match=message):
        read_truth(path)


def test_only_classes_that_detectors_know_are_asked_for(tmp_path):
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth_of([thing(1, (0, 0, 9, 9)), thing(2, (20, 0, 9, 9))])))
    truth = read_truth(path, ['class 2'])
    assert [item['name'] for item in truth['categories']] == ['class 2']
    assert [item['category_id'] for item in truth['annotations']] == [2]
    assert len(read_truth(path)['categories']) == 2
    with pytest.raises(InputError, match="does not have the configured classes: 'class 3', 'class 4'"):
        read_truth(path, ['class 3', 'class 4'])
