"""The data set that tests of training compose."""
from __future__ import annotations

import json

import cv2
import numpy as np
from composed_instances import CLASSES, compose_instances
from pycocotools.coco import COCO


def test_instances_are_apart_inside_and_of_one_colour(tmp_path):
    root = compose_instances(tmp_path / 'data', images=8)
    coco = COCO(root / 'annotations/train.json')
    assert {coco.cats[item['category_id']]['name'] for item in coco.anns.values()} == set(CLASSES)
    for image_id, entry in coco.imgs.items():
        pixels = cv2.imread(str(root / 'train' / entry['file_name']))
        assert pixels.shape == (128, 160, 3) == (entry['height'], entry['width'], 3)
        items = coco.loadAnns(coco.getAnnIds(image_id))
        masks = np.stack([coco.annToMask(item) for item in items])
        assert 1 <= len(items) <= 3 and masks.sum(axis=0).max() == 1
        for item, mask in zip(items, masks):
            x, y, width, height = item['bbox']
            assert min(x, y) >= 0 and x + width <= entry['width'] and y + height <= entry['height']
            assert abs(mask.sum() - item['area']) < 0.2 * item['area']
            inner = pixels[cv2.erode(mask, np.ones((3, 3))).astype(bool)]
            assert len(inner) > 0 and (inner == inner[0]).all()


def test_same_seed_same_set_other_seed_other_set(tmp_path):
    roots = [compose_instances(tmp_path / str(index), seed=seed) for index, seed in enumerate((0, 0, 1))]
    contents = [json.loads((root / 'annotations/train.json').read_text()) for root in roots]
    pictures = [(root / 'train/000001.png').read_bytes() for root in roots]
    assert contents[0] == contents[1] != contents[2] and pictures[0] == pictures[1] != pictures[2]
