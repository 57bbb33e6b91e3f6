"""Test-time augmentation with masks: what remains has its own mask, where its object is."""
from __future__ import annotations

import pytest
import torch

import mmmamba  # noqa: F401  # isort: skip  (before mmdet.structures, which needs mmcv's operators)
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn

from mmmamba.models.encoded_masks import EncodedMasks

pytestmark = pytest.mark.usefixtures('mmdet_scope')
HEIGHT, WIDTH = 12, 20


def view(boxes, scores, direction=None) -> DetDataSample:
    """Predictions of an image, flipped or not; a mask is its box without the last column of it."""
    masks = torch.zeros(len(boxes), HEIGHT, WIDTH, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes):
        mask[y1:y2, x1:x2 - 1] = True
    boxes = torch.tensor(boxes, dtype=torch.float).reshape(-1, 4)
    if direction in ('horizontal', 'diagonal'):
        boxes[:, [0, 2]], masks = WIDTH - boxes[:, [2, 0]], masks.flip(-1)
    if direction in ('vertical', 'diagonal'):
        boxes[:, [1, 3]], masks = HEIGHT - boxes[:, [3, 1]], masks.flip(-2)
    found = InstanceData(bboxes=boxes, scores=torch.tensor(scores), labels=torch.zeros(len(boxes), dtype=torch.long),
                         masks=masks)
    return DetDataSample(pred_instances=found, metainfo=dict(
        ori_shape=(HEIGHT, WIDTH), flip=direction is not None, flip_direction=direction))


@pytest.fixture(params=[False, True], ids=['tensors', 'encoded'], autouse=True)
def encoded(request, monkeypatch) -> None:
    """Runs each test with both forms of masks."""
    if request.param:
        plain = merge.__globals__['view']

        def encode(*arguments) -> DetDataSample:
            sample = plain(*arguments)
            masks = sample.pred_instances.pop('masks')
            sample.pred_instances.masks = EncodedMasks.made(masks.__getitem__, len(masks), (HEIGHT, WIDTH))
            return sample

        monkeypatch.setitem(merge.__globals__, 'view', encode)


def bitmaps(found: InstanceData) -> torch.Tensor:
    return found.masks.cpu()


def merge(views, max_per_img=10) -> InstanceData:
    tta_cfg = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=max_per_img)
    module = nn.Identity()
    module.test_step = None  # which it has to have
    model = MODELS.build(dict(type='InsTTAModel', module=module, tta_cfg=tta_cfg))
    sample, = model.merge_preds([views])
    return sample.pred_instances


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_boxes_and_masks_are_flipped_back_together(direction):
    first, second = [1, 2, 6, 9], [10, 1, 18, 7]
    expected = view([second, first], [0.9, 0.8]).pred_instances
    merged = merge([view([first], [0.8]), view([first, second], [0.3, 0.9], direction)])
    for key in ('bboxes', 'scores', 'labels'):
        assert torch.equal(merged[key], expected[key]), key
    assert torch.equal(bitmaps(merged), bitmaps(expected))


def test_at_most_so_many_remain():
    merged = merge([view([[1, 2, 6, 9], [10, 1, 18, 7]], [0.8, 0.5]), view([], [], 'horizontal')], max_per_img=1)
    assert merged.scores.tolist() == [pytest.approx(0.8)] and bitmaps(merged).shape == (1, HEIGHT, WIDTH)


def test_nothing_found_in_any_view():
    merged = merge([view([], []), view([], [], 'vertical')])
    assert bitmaps(merged).shape == (0, HEIGHT, WIDTH) and merged.bboxes.shape == (0, 4)
