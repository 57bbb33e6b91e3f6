"""Masks stay on their objects through every transform of the recipes, whichever form they have."""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as mask_util

import mmmamba  # noqa: F401  # isort: skip  (before mmdet.structures, which needs mmcv's operators)
from mmcv.transforms import Compose
from mmdet.registry import DATASETS
from mmdet.structures.mask import BitmapMasks, PolygonMasks

from mmmamba.datasets import CheckedCocoDataset
from mmmamba.datasets.transforms.instance_masks import StridedMasks
from mmmamba.seeding import seed_everything

pytestmark = pytest.mark.usefixtures('mmdet_scope')
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
SIZES = ((288, 192), (210, 270), (192, 192), (301, 153))  # width and height
SCALE = (192, 192)
META = ('img_shape', 'ori_shape')


def compose_objects(root: Path, form: str) -> dict:
    """A data set's config: images of three objects, each of its class's colour, one of them in two parts.

    Args:
        root: An empty folder.
        form: ``'polygon'``, ``'rle'``, or ``'mixed'`` for RLE in every other image.
    """
    content = dict(images=[], annotations=[], categories=[dict(id=i + 1, name=str(i)) for i in range(len(COLOURS))])
    for number, (width, height) in enumerate(SIZES):
        canvas = np.full((height, width, 3), 114, np.uint8)
        content['images'].append(dict(id=number, file_name=f'{number}.png', width=width, height=height))
        u, v = width / 16, height / 16
        shapes = ([[(1, 1), (6, 2), (3, 7)]], [[(8, 1), (15, 1), (15, 6), (11, 3), (8, 6)]],
                  [[(1, 9), (6, 9), (6, 15), (1, 15)], [(10, 9), (15, 12), (10, 15)]])
        for label, parts in enumerate(shapes):
            parts = [np.array(part) * (u, v) for part in parts]
            polygons = [part.ravel().tolist() for part in parts]
            rle = mask_util.merge(mask_util.frPyObjects(polygons, height, width))
            mask = mask_util.decode(rle).astype(bool)
            canvas[mask] = COLOURS[label]
            points = np.concatenate(parts)
            (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
            as_rle = form == 'rle' or form == 'mixed' and number % 2
            content['annotations'].append(dict(
                id=len(content['annotations']) + 1, image_id=number, category_id=label + 1, area=float(mask.sum()),
                bbox=[x1, y1, x2 - x1, y2 - y1], iscrowd=0,
                segmentation={**rle, 'counts': rle['counts'].decode()} if as_rle else polygons))
        cv2.imwrite(str(root / f'{number}.png'), canvas)
    (root / 'annotations.json').write_text(json.dumps(content))
    return dict(type='CheckedCocoDataset', ann_file=str(root / 'annotations.json'), data_prefix=dict(img=str(root)),
                metainfo=dict(classes=tuple(str(i) for i in range(len(COLOURS)))))


LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadInstanceMasks'),
        dict(type='Resize', scale=SCALE, keep_ratio=True)]
AFFINE = dict(type='CenteredRandomAffine', max_translate_ratio=0.1, scaling_ratio_range=(0.5, 1.5))
PIPELINES = {
    'mosaic': [dict(type='MosaicWithMasks', img_scale=SCALE, pad_val=114.0),
               {**AFFINE, 'border': (-SCALE[0] // 2, -SCALE[1] // 2)}, dict(type='RandomFlip', prob=0.5)],
    'wide mosaic': [dict(type='MosaicWithMasks', img_scale=(288, 144), pad_val=114.0)],
    'whole': [dict(type='Pad', size=SCALE, pad_val=dict(img=(114, 114, 114))), AFFINE],
    'turned': [dict(type='Pad', size=SCALE, pad_val=dict(img=(114, 114, 114))),
               {**AFFINE, 'max_rotate_degree': 30.0, 'max_shear_degree': 10.0}],
    'flipped': [dict(type='RandomFlip', prob=1.0, direction='diagonal'), dict(type='LetterboxPad', size=SCALE)],
}


@pytest.mark.parametrize('form', ['polygon', 'rle', 'mixed'])
@pytest.mark.parametrize('pipeline', PIPELINES)
def test_masks_stay_on_their_objects(pipeline, form, tmp_path):
    dataset = DATASETS.build(dict(
        type='SeededDataset', dataset={**compose_objects(tmp_path, form), 'pipeline': LOAD},
        pipeline=[*PIPELINES[pipeline], dict(type='PackDetInputs', meta_keys=META)]))
    seed_everything(0)
    seen = 0
    for index in range(8):
        packed = dataset[index % len(SIZES)]
        image, instances = packed['inputs'].numpy(), packed['data_samples'].gt_instances
        masks = instances.masks.to_ndarray().astype(bool)
        assert masks.shape == (len(instances.bboxes), *image.shape[1:])
        for label in range(len(COLOURS)):
            of_class = instances.labels == label
            if not of_class.any():
                continue
            # Objects of one class never overlap. Of those that a border cuts to a sliver, only pixels are left.
            drawn = (np.abs(image.transpose(1, 2, 0).astype(int) - COLOURS[label]) < 60).all(axis=-1)
            masked = masks[of_class].any(axis=0)
            boxed = np.zeros_like(drawn)
            for x1, y1, x2, y2 in instances.bboxes[of_class].tensor.round().int().tolist():
                boxed[y1:y2, x1:x2] = True
            if (boxed & drawn).sum() > 400:
                iou = (masked & drawn & boxed).sum() / ((masked | drawn) & boxed).sum()
                assert iou > 0.88, (index, label, iou)
                seen += 1
    assert seen >= 10


def packed_targets(tmp_path, form, **settings):
    steps = [*LOAD, dict(type='PackMaskTargets', meta_keys=META, **settings)]
    dataset = DATASETS.build({**compose_objects(tmp_path, form), 'pipeline': steps})
    full = DATASETS.build({**compose_objects(tmp_path, form), 'pipeline': [*LOAD, dict(type='PackDetInputs')]})
    return [(dataset[i]['data_samples'], full[i]['data_samples']) for i in range(len(SIZES))]


@pytest.mark.parametrize('form', ['polygon', 'rle'])
@pytest.mark.parametrize('stride', [2, 4])
def test_targets_are_the_masks_made_smaller(form, stride, tmp_path):
    for small, full in packed_targets(tmp_path, form, mask_stride=stride):
        height, width = full.img_shape
        assert small.img_shape == full.img_shape
        masks = small.gt_instances.masks
        assert masks.masks.shape == (3, -(-height // stride), -(-width // stride))
        large = full.gt_instances.masks.to_ndarray()
        for upsampled, whole in zip(masks.to_ndarray().astype(bool), large):
            assert (upsampled & whole).sum() / (upsampled | whole.astype(bool)).sum() > 0.94 - 0.03 * stride


def test_targets_are_padded_as_the_images_they_stand_for():
    masks = StridedMasks(np.ones((2, 3, 5), np.uint8), 4, (12, 17))
    padded = masks.pad((17, 32))
    assert padded.masks.shape == (2, 5, 8) and padded.masks.sum() == 30
    assert StridedMasks.of(PolygonMasks([], 9, 6), 4).masks.shape == (0, 3, 2)


def test_parts_that_overlap_leave_no_hole():
    square = np.array([0., 0., 12., 0., 12., 12., 0., 12.])
    masks = StridedMasks.of(PolygonMasks([[square, square + 2]], 16, 16), 4)
    assert masks.masks[0, 1, 1] == 1


def test_images_without_objects():
    results = dict(img=np.zeros((8, 12, 3), np.uint8), img_shape=(8, 12), ori_shape=(8, 12), instances=[],
                   img_path='')
    pipeline = Compose([dict(type='LoadInstanceMasks'), dict(type='Pad', size=(16, 16)), AFFINE,
                        dict(type='PackMaskTargets', meta_keys=META)])
    assert len(pipeline(results)['data_samples'].gt_instances.masks) == 0


def test_a_crowd_in_rle_does_not_make_bitmaps_of_polygons(tmp_path):
    cfg = compose_objects(tmp_path, 'polygon')
    content = json.loads(Path(cfg['ann_file']).read_text())
    crowd = dict(content['annotations'][0], id=99, iscrowd=1,
                 segmentation=dict(size=[SIZES[0][1], SIZES[0][0]], counts=[0, SIZES[0][0] * SIZES[0][1]]))
    content['annotations'].append(crowd)
    Path(cfg['ann_file']).write_text(json.dumps(content))
    dataset = DATASETS.build({**cfg, 'pipeline': [*LOAD, dict(type='PackDetInputs')]})
    assert isinstance(dataset, CheckedCocoDataset)
    sample = dataset[0]['data_samples']
    assert isinstance(sample.gt_instances.masks, PolygonMasks) and len(sample.gt_instances.masks) == 3
    assert len(sample.ignored_instances.bboxes) == 1


def test_whole_coordinates_are_scaled_without_being_cut_off(tmp_path):
    cfg = compose_objects(tmp_path, 'polygon')
    content = json.loads(Path(cfg['ann_file']).read_text())
    content['annotations'][0]['segmentation'] = [[1, 1, 30, 1, 30, 41]]
    Path(cfg['ann_file']).write_text(json.dumps(content))
    dataset = DATASETS.build({**cfg, 'pipeline': [*LOAD, dict(type='PackDetInputs')]})
    part, = dataset[0]['data_samples'].gt_instances.masks.masks[0]
    np.testing.assert_allclose(part[:4], [192 / 288, 128 / 192, 20, 128 / 192])


def test_a_box_without_a_mask_is_not_learnt(tmp_path):
    cfg = compose_objects(tmp_path, 'polygon')
    content = json.loads(Path(cfg['ann_file']).read_text())
    del content['annotations'][0]['segmentation']
    content['annotations'][1]['segmentation'] = []
    Path(cfg['ann_file']).write_text(json.dumps(content))
    dataset = DATASETS.build({**cfg, 'pipeline': [*LOAD, dict(type='PackMaskTargets', meta_keys=META)]})
    sample = dataset[0]['data_samples']
    assert sample.gt_instances.labels.tolist() == [2] and len(sample.gt_instances.masks) == 1
    assert len(sample.ignored_instances.bboxes) == 2


def test_mosaic_that_is_not_made_leaves_the_sample(tmp_path):
    dataset = DATASETS.build(dict(
        type='SeededDataset', dataset={**compose_objects(tmp_path, 'rle'), 'pipeline': LOAD},
        pipeline=[dict(type='MosaicWithMasks', img_scale=SCALE, prob=0.0)]))
    sample = dataset[0]
    assert isinstance(sample['gt_masks'], BitmapMasks) and len(sample['gt_masks']) == len(sample['gt_bboxes']) == 3
    assert torch.equal(torch.as_tensor(sample['gt_bboxes_labels']), torch.arange(3))
