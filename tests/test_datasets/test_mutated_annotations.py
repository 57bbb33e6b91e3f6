"""A file with faults is refused in one line, or gives exactly the boxes, labels, masks and AP that it says."""
from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mutated_annotations import CLASSES, compose, mutate
from pycocotools import mask as coco_mask

from mmmamba.analysis.compare.evaluation import class_precisions, evaluate_boxes, read_truth
from mmmamba.errors import InputError

FILES = int(os.environ.get('MUTATED_FILES', '24'))
pytestmark = pytest.mark.usefixtures('mmdet_scope')


def build(root: Path, masks: bool, test_mode: bool):
    return DATASETS.build(dict(
        type='CheckedCocoDataset', ann_file=str(root / 'file.json'), data_prefix=dict(img=f'{root}/img/'),
        metainfo=dict(classes=CLASSES), test_mode=test_mode, pipeline=[
            dict(type='LoadCheckedImage'), dict(type='LoadAnnotations', with_bbox=True, with_mask=masks)]))


def check_training(root: Path, content: dict, masks: bool) -> None:
    """Compares what is learnt with what the file says, read here by simpler means."""
    dataset = build(root, masks, test_mode=False)
    names = {category['id']: category['name'] for category in content['categories']}
    learnt = 0
    for index in range(len(dataset)):
        sample = dataset[index]
        image, = (image for image in content['images'] if image['id'] == sample['img_id'])
        expected = []
        for item in content['annotations']:
            x, y, w, h = item['bbox']
            inside = x < image['width'] and y < image['height'] and x + w > 0 and y + h > 0
            if item['image_id'] == image['id'] and names[item['category_id']] in CLASSES and not item.get('ignore') \
                    and min(w, h) >= 1 and item['area'] > 0 and inside:
                expected.append((np.float32([x, y, x + w, y + h]).tolist(), CLASSES.index(names[item['category_id']]),
                                 bool(item.get('iscrowd')), item.get('segmentation')))
        found = list(zip(sample['gt_bboxes'].tensor.tolist(), sample['gt_bboxes_labels'].tolist(),
                         sample['gt_ignore_flags'].tolist()))
        assert [item[:2] for item in found] == [item[:2] for item in expected]
        for number, (item, (_, _, crowd, segmentation)) in enumerate(zip(found, expected)):
            assert item[2] == crowd or masks and item[2]
            learnt += not item[2]
            if masks and not item[2]:
                mask = sample['gt_masks'].masks[number]
                assert np.array_equal(mask, decode(segmentation, image)) and mask.any()
    assert learnt


def decode(segmentation: list | dict, image: dict) -> np.ndarray:
    """A segmentation as a mask; RLE by hand."""
    height, width = int(image['height']), int(image['width'])
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))
    if isinstance(segmentation['counts'], str):
        return coco_mask.decode(segmentation)
    counts = segmentation['counts']
    return np.repeat(np.arange(len(counts)) % 2, counts).reshape(width, height).T


def check_testing(root: Path, content: dict, masks: bool) -> None:
    """Finds all objects of one class, and none of the others: each class's AP is known."""
    dataset = build(root, masks, test_mode=True)
    names = {category['id']: category['name'] for category in content['categories']}
    objects = [item for item in content.get('annotations', [])
               if names[item['category_id']] in CLASSES and not item['iscrowd']]
    assert objects or not content.get('annotations')
    for chosen in [*{names[item['category_id']] for item in objects}, None]:  # None: all of them
        metric = METRICS.build(dict(type='CocoMetric', ann_file=str(root / 'file.json'), classwise=True,
                                    metric=['bbox', 'segm'] if masks else 'bbox'))
        metric.dataset_meta = dataset.metainfo
        for index in range(len(dataset)):
            sample = dataset[index]
            image, = (image for image in content['images'] if image['id'] == sample['img_id'])
            found = [item for item in objects if item['image_id'] == sample['img_id']
                     and chosen in (None, names[item['category_id']])]
            boxes = torch.tensor([item['bbox'] for item in found], dtype=torch.float64).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            instances = dict(bboxes=boxes, scores=torch.linspace(0.9, 0.8, len(found)), labels=torch.tensor(
                [CLASSES.index(names[item['category_id']]) for item in found], dtype=torch.long))
            if masks:
                instances['masks'] = [coco_mask.encode(np.asfortranarray(decode(item['segmentation'], image),
                                                                         np.uint8)) for item in found]
            metric.process({}, [dict(img_id=sample['img_id'], ori_shape=sample['ori_shape'],
                                     pred_instances=instances)])
        results = metric.evaluate(len(dataset))
        present = {names[item['category_id']] for item in objects}
        if any(min(item['bbox'][2:]) <= 0 for item in objects):  # nothing can match them: a warning says so
            assert chosen is not None or results['coco/bbox_mAP'] < 1
            continue
        expected = {name: (float(chosen in (None, name)) if name in present else math.nan) for name in CLASSES}
        for kind in ('bbox', 'segm') if masks and objects else ('bbox', ) if objects else ():
            assert results[f'coco/{kind}_mAP'] == pytest.approx(1 if chosen is None else 1 / len(present), abs=1e-3)
        if objects:
            found = {name: results[f'coco/{name}_precision'] for name in CLASSES}
            assert found == pytest.approx(expected, nan_ok=True)


def check_comparing(root: Path, content: dict, masks: bool) -> None:
    """Finds everything."""
    truth = read_truth(root / 'file.json', CLASSES)
    precisions = class_precisions(evaluate_boxes(truth, [{**item, 'score': 0.9} for item in truth['annotations']
                                                         if not item['iscrowd']]))
    names = {category['id']: category['name'] for category in content['categories']}
    counted = [item for item in content['annotations']
               if names[item['category_id']] in CLASSES and not item['iscrowd']]
    assert len(counted) == sum(not item['iscrowd'] for item in truth['annotations']) > 0
    present = {item['category_id'] for item in truth['annotations'] if not item['iscrowd']}
    expected = [1.0 if key in present else -1.0 for key in sorted(item['id'] for item in truth['categories'])]
    without_size = {item['category_id'] for item in counted if min(item['bbox'][2:]) <= 0}  # nothing can match them
    certain = [item['id'] not in without_size for item in sorted(truth['categories'], key=lambda item: item['id'])]
    assert np.allclose(precisions[..., certain], np.array(expected)[certain])


def check(path, root: Path, content: dict | None, masks: bool) -> str:
    """Runs one path over a file: 'right' or 'refused', else an error."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            path(root, content, masks)
    except InputError as error:
        message = str(error)
        assert '\n' not in message and str(root) in message and len(message) < 500, message
        message.encode()
        return 'refused'
    return 'right'


def normalised(text: bytes) -> dict | None:
    """The content of a file, with categories of numbers' names as text; None where it is none."""
    try:
        content = json.loads(text.decode())
        for category in content['categories']:
            name = category['name']
            if type(name) in (int, float):
                category['name'] = str(int(name)) if name == int(name) else str(name)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    return content


PATHS = ((check_training, False), (check_training, True), (check_testing, False), (check_testing, True),
         (check_comparing, False))


def test_every_mutated_file_is_refused_in_one_line_or_right(tmp_path):
    good = compose(tmp_path)
    rng = np.random.default_rng(int(os.environ.get('MUTATED_SEED', '0')))
    outcomes = Counter()
    for number in range(FILES):
        done, text = mutate(good, rng, times=0 if number == 0 else 1 + int(rng.random() < 0.3))
        (tmp_path / 'file.json').write_bytes(text)
        content = normalised(text)
        for path, masks in PATHS:
            try:
                outcome = check(path, tmp_path, content, masks)
            except Exception as error:
                raise AssertionError(f'{path.__name__}, masks {masks}, file {number}: {done}') from error
            outcomes[path.__name__, masks, outcome] += 1
            assert number or outcome == 'right'  # the first has no fault
    print(dict(outcomes))
    assert len({key[:2] for key in outcomes if key[2] == 'right'}) == len({key[:2] for key in outcomes}) == 5
    for path, masks in {key[:2] for key in outcomes}:  # both happen often
        assert FILES / 20 < outcomes[path, masks, 'right'] < FILES * 19 / 20
