from __future__ import annotations

import dataclasses
import json

import pytest

from mmmamba.analysis.compare.plots import draw_pictures, spread
from mmmamba.analysis.compare.results import RunResult, summarise
from mmmamba.errors import InputError


@pytest.fixture
def truth(shared_coco_folder):
    return json.loads((shared_coco_folder / 'annotations' / 'train.json').read_text())


@pytest.fixture
def run(shared_coco_folder, make_run):
    return make_run(shared_coco_folder / 'annotations' / 'train.json', 'a', 0, 0.7)


def test_images_are_spread_over_those_with_objects(truth):
    assert [image['id'] for image in spread(truth)] == [1, 5, 9, 13]  # every fourth of the 16 has none
    truth['annotations'] = [item for item in truth['annotations'] if item['image_id'] in (2, 7)]
    assert [image['id'] for image in spread(truth)] == [2, 7]


def test_truth_and_detections_stand_side_by_side(shared_coco_folder, truth, run):
    summaries = summarise([RunResult('broken', 0, failure='it broke'), run], truth)
    figure = draw_pictures(summaries, truth, shared_coco_folder / 'train', score_thr=0.3)
    assert [axis.get_title() for axis in figure.axes] == ['truth', 'a'] * 4
    detections = json.loads(run.detections.read_text())
    left_out = 0
    for image, (true, predicted) in zip(spread(truth), zip(figure.axes[::2], figure.axes[1::2])):
        boxes = [item['bbox'] for item in truth['annotations'] if item['image_id'] == image['id']]
        assert [[*patch.get_xy(), patch.get_width(), patch.get_height()] for patch in true.patches] == boxes
        scores = [item['score'] for item in detections if item['image_id'] == image['id']]
        shown = [score for score in scores if score >= 0.3]
        assert [text.get_text().split()[1] for text in predicted.texts] == [f'{score:.2f}' for score in shown]
        left_out += len(scores) - len(shown)
    assert left_out > 0


def test_many_configs_are_wrapped(shared_coco_folder, truth, run):
    summaries = summarise([dataclasses.replace(run, name=f'config{i}') for i in range(8)], truth)
    few, many = (draw_pictures(summaries[:count], truth, shared_coco_folder / 'train', score_thr=0.3)
                 for count in (1, 8))
    assert (few.get_figwidth(), many.get_figwidth()) == (6, 18)
    assert many.get_figheight() > 1.7 * few.get_figheight()
    assert [axis.get_title() for axis in many.axes[:12]] == ['truth', *(f'config{i}' for i in range(8)), '', '', '']


def test_a_missing_image_gets_one_line(tmp_path, truth, run):
    with pytest.raises(InputError, match='000001.jpg cannot be read'):
        draw_pictures(summarise([run], truth), truth, tmp_path, score_thr=0.3)
