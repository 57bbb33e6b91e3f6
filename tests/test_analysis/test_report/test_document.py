"""The page, its numbers and its pictures; names of any kind are text, and nothing is loaded from elsewhere."""
from __future__ import annotations

import base64
import csv
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from handmade_boxes import box, thing, truth_of

from mmmamba.analysis.report.document import write_report
from mmmamba.analysis.report.history import read_history
from mmmamba.analysis.report.results import EvaluatedRun, Results
from mmmamba.analysis.report.svg import Line, chart, round_ticks

STRANGE = '<b>&"$x$'


class Checked(HTMLParser):
    """Collects tags and addresses, and sees that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ('src', 'href')]
        if tag not in ('meta', 'br'):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def written(tmp_path: Path):
    """A function that writes the report of detections on two images: an object each of two classes and two more."""
    def write(boxes: list[dict], metrics: dict | None = None, classes: int = 2,
              config: str = 'config.py', pictures: bool = True) -> tuple[Results, str]:
        truth = truth_of([thing(1, (0, 0, 100, 100)), thing(2, (200, 0, 20, 20)), thing(1, (0, 0, 60, 60), image=2)])
        truth['categories'] += [{'id': number, 'name': f'class {number}'} for number in range(3, classes + 1)]
        truth['categories'][0]['name'] = STRANGE
        images = tmp_path / 'images'
        images.mkdir(exist_ok=True)
        for image in truth['images']:
            cv2.imwrite(str(images / image['file_name']), np.full((480, 640, 3), 99, np.uint8))
        detections = tmp_path / 'detections.bbox.json'
        detections.write_text(json.dumps(boxes))
        run = EvaluatedRun(f'{STRANGE} report', config, str(tmp_path / 'work' / 'epoch_1.pth'), f'test {STRANGE}',
                      truth, images, detections, metrics or {}, {'detector': STRANGE}, f'a = "{STRANGE}"')
        results = write_report(run, tmp_path / 'report', pictures)
        return results, (tmp_path / 'report' / 'report.html').read_text(encoding='utf-8')
    return write


def decoded(address: str) -> np.ndarray:
    content = base64.b64decode(address.removeprefix('data:image/jpeg;base64,'))
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


BOXES = [box(1, (0, 0, 100, 100), 0.9), box(1, (200, 0, 20, 20), 0.7), box(1, (0, 0, 60, 60), 0.65, image=2),
         box(2, (300, 300, 40, 40), 0.65)]


def test_page_numbers_and_pictures(written, tmp_path):
    metrics = {'coco/bbox_mAP': 0.251, 'coco/bbox_mAP_50': 0.5, 'coco/bbox_mAP_s': -1, 'coco/segm_mAP': 0.125}
    results, text = written(BOXES, metrics)
    parsed = Checked()
    parsed.feed(text)
    assert not parsed.open and 'script' not in parsed.tags and 'b' in parsed.tags
    assert all(address.startswith(('data:image/jpeg;base64,', '#')) for address in parsed.addresses)
    assert STRANGE not in text and '&lt;b&gt;&amp;' in text
    assert '25.1' in text and '12.5' in text and len(re.findall('<image ', text)) == 2
    assert 'prefers-color-scheme: dark' in text
    numbers = json.loads((tmp_path / 'report' / 'report.json').read_text())
    assert numbers['best_score'] == results.score and numbers['metrics']['coco/bbox_mAP'] == 0.251
    assert numbers['confusion_matrix']['counts'] == results.matrix.tolist() == [[2, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert numbers['sizes'] == {'small': {'objects': 1, 'found': 0}, 'medium': {'objects': 1, 'found': 1},
                                'large': {'objects': 1, 'found': 1}}
    assert numbers['worst_images'] == [{'image_id': 1, 'found': 1, 'missed': 0, 'false': 1, 'wrong_class': 1}]
    rows = list(csv.DictReader((tmp_path / 'report' / 'classes.csv').open()))
    assert [row['class'] for row in rows] == [STRANGE, 'class 2']
    assert rows[0]['objects'] == '2' and rows[0]['recall'] == '1.0' and rows[1]['precision'] == '0.0'


def test_of_many_classes_those_that_are_mixed_up_are_listed(written):
    text = written(BOXES, classes=20)[1]
    row = f'<td class="words">class 2</td><td class="words">{html.escape(STRANGE)}</td><td>1</td>'
    assert row in text and row not in written(BOXES)[1]


def test_without_pictures_the_images_with_most_errors_are_listed(written):
    text = written(BOXES, pictures=False)[1]
    assert '<image ' not in text and 'data:' not in text
    assert '1 of 1 images with errors' in text
    assert re.search(r'<td class="words">1\.\w+</td>(<td>\d</td>){4}', text)[0].endswith(
        '<td>1</td><td>0</td><td>1</td><td>1</td>')


def test_detections_where_no_object_is_are_shown_for_labels_that_may_be_missing(written, tmp_path):
    # Neither the duplicate nor what overlaps an object a little may lack a label.
    boxes = [*BOXES, box(1, (0, 0, 98, 98), 0.8), box(1, (0, 50, 90, 120), 0.95),
             box(2, (600, 440, 80, 80), 0.9, image=2)]
    results, text = written(boxes)
    assert [(item['image_id'], item['score']) for item in results.unlabelled] == [(2, 0.9), (1, 0.65)]
    assert 'an IoU below 0.1 with every object: 2.' in text
    crops = re.findall(r'aria-label="(class 2 0\.\d+)"><image href="([^"]+)"[^>]+/><rect ([^>]+)/>', text)
    assert [crop[0] for crop in crops] == ['class 2 0.90', 'class 2 0.65']
    assert crops[0][2] == crops[1][2] == 'x="28.0" y="28.0" width="56.0" height="56.0"'
    pixels = decoded(crops[0][1])  # at the lower right corner of its image
    assert abs(pixels[:52, :52].astype(int) - 99).max() < 9 and abs(pixels[60:, 60:].astype(int) - 127).max() < 9
    assert abs(decoded(crops[1][1]).astype(int) - 99).max() < 9
    listed = json.loads((tmp_path / 'report' / 'report.json').read_text())['unlabelled']
    assert listed[1] == {'image_id': 1, 'category_id': 2, 'bbox': [300, 300, 40, 40], 'score': 0.65}
    row = '<td class="words">class 2</td><td>0.65</td><td>300, 300, 40, 40</td>'
    assert row in written(boxes, pictures=False)[1]


@pytest.mark.parametrize('bbox', [(-5000, 3000, 1e6, 10), (9000, 9000, 5, 0), (-1e300, 0, 10, 10)])
def test_a_detection_outside_of_its_image_has_a_grey_crop(written, bbox):
    results, text = written([*BOXES, box(1, bbox, 0.9)])
    assert results.unlabelled[0]['score'] == 0.9
    crop = re.search(r'0\.90"><image href="([^"]+)"', text)[1]
    assert abs(decoded(crop).astype(int) - 127).max() < 3


def test_the_crop_of_a_large_detection_is_small(written):
    text = written([*BOXES, box(2, (150, 120, 480, 350), 0.9)])[1]
    crop = re.search(r'class 2 0\.90"><image href="([^"]+)"[^>]+/><rect x="28.0" [^>]+width="56.0"', text)[1]
    assert decoded(crop).shape == (112, 112, 3)


def test_a_detector_that_finds_nothing_has_a_report(written):
    results, text = written([])
    assert results.summary()['f1'] == 0 and np.isnan(results.summary()['precision'])
    assert 'No detection finds an object at any score' in text and 'nan' not in text.lower()
    assert '<span>Best score</span><b>–</b>' in text
    assert [record['own_best_score'] for record in results.class_records()] == [None, None]


def test_the_call_with_the_best_score_can_be_typed(written, tmp_path):
    text = html.unescape(written(BOXES, config='my config.py')[1])
    assert f"mmmamba predict 'my config.py' {tmp_path}/work/epoch_1.pth SOURCE --score 0." in text
    assert f'are in {tmp_path}/detections.bbox.json.' in text


def test_a_detector_without_errors_has_no_pictures(written):
    things = ((1, (0, 0, 100, 100), 1), (2, (200, 0, 20, 20), 1), (1, (0, 0, 60, 60), 2))
    results, text = written([box(category, bbox, 0.9, image) for category, bbox, image in things])
    assert results.summary() == {'precision': 1, 'recall': 1, 'f1': 1} and '<image ' not in text
    assert results.ap == pytest.approx([1, 1]) and results.ap50 == pytest.approx([1, 1])


def log(folder: Path, run: str, records: list[dict]) -> None:
    path = folder / run / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, records)) + '\n{"loss": 3')  # the last line of a run that was killed


def test_the_history_of_a_training_that_was_resumed(tmp_path, written):
    work = tmp_path / 'work'

    def epoch(number: int, loss: float | None, ap: float) -> list[dict]:
        return [{'loss': loss, 'epoch': number, 'iter': 10 * number, 'step': 10 * number},
                {'coco/bbox_mAP': ap, 'coco/bbox_mAP_50': 2 * ap, 'step': number}]

    log(work, '1', [*epoch(1, 5.0, 0.1), *epoch(2, 4.0, 0.2), *epoch(3, 9.0, 0.0)])
    log(work, '2', [*epoch(3, 3.0, 0.3), *epoch(4, None, 0.25)])
    log(work, '3', [{'coco/bbox_mAP': 0.9, 'step': 4}])  # of a test
    history = read_history(work)
    assert list(history.epochs) == [1, 2, 3] and list(history.losses) == [5, 4, 3]
    assert list(history.validated) == [1, 2, 3, 4] and list(history.ap) == [0.1, 0.2, 0.3, 0.25]
    assert 'The best AP on the validation set is 30.0, after epoch 3' in written(BOXES)[1]
    assert read_history(tmp_path / 'elsewhere') is None


@pytest.mark.parametrize(('end', 'ticks'), [(1, [0, .2, .4, .6, .8, 1]), (14, [0, 2, 4, 6, 8, 10, 12, 14]),
                                            (230, [0, 50, 100, 150, 200]), (0.03, [0, .005, .01, .015, .02, .025, .03])
                                            ])
def test_ticks_are_round(end, ticks):
    assert round_ticks(end) == pytest.approx(ticks)


def test_a_line_is_interrupted_where_a_value_is_missing():
    drawn = chart([Line(STRANGE, [0, 0.5, 0.6, 1], [0, float('nan'), 1, 1], 'red')], 'x', 'y')
    assert len(re.findall('<polyline', drawn)) == 2 and 'nan' not in drawn and STRANGE not in drawn
