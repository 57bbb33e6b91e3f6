"""Encoded masks: what mmdet's metric, inferencer and visualiser do with them, and what they take."""
from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

import mmmamba  # noqa: F401  # isort: skip  (before mmdet.structures, which needs mmcv's operators)
from mmdet.registry import METRICS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn

from mmmamba.analysis.measure.memory import peak_memory
from mmmamba.engine import EncodedMasksHook
from mmmamba.models import encoded_masks
from mmmamba.models.dense_heads.mask_assembly import masks_retina
from mmmamba.models.encoded_masks import EncodedMasks
from mmmamba.seeding import seed_everything

HEIGHT, WIDTH = 20, 30


@pytest.fixture
def bitmaps() -> torch.Tensor:
    masks = torch.rand(5, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) > 0.5
    masks[3] = False
    return masks


@pytest.fixture
def masks(bitmaps) -> EncodedMasks:
    return EncodedMasks.made(bitmaps.__getitem__, len(bitmaps), (HEIGHT, WIDTH))


def instances(masks) -> InstanceData:
    number = len(masks)
    return InstanceData(bboxes=torch.tensor([[2., 3., 20., 18.]]).repeat(number, 1), masks=masks,
                        scores=torch.linspace(0.9, 0.1, number), labels=torch.zeros(number, dtype=torch.long))


def test_they_are_the_bitmaps(masks, bitmaps):
    assert torch.equal(masks.cpu(), bitmaps) and torch.equal(masks.to_tensor(torch.bool, 'cpu'), bitmaps)
    assert np.array_equal(masks.to_ndarray(), bitmaps.numpy()) and len(masks) == 5
    assert all(np.array_equal(mask, bitmap) for mask, bitmap in zip(masks, bitmaps.numpy()))
    for direction, dims in (('horizontal', [-1]), ('vertical', [-2]), ('diagonal', [-1, -2])):
        assert torch.equal(masks.flip(direction).cpu(), bitmaps.flip(dims))


@pytest.mark.parametrize('index', [torch.tensor([True, False, True, True, False]), torch.tensor([4, 0]), slice(1, 3),
                                   torch.zeros(5, dtype=torch.bool), torch.zeros(0, dtype=torch.long)])
def test_instances_select_them(masks, bitmaps, index):
    found = instances(masks)[index]
    assert torch.equal(found.masks.cpu(), bitmaps[index])
    joined = InstanceData.cat([found, instances(masks)])
    assert torch.equal(joined.masks.cpu(), torch.cat([bitmaps[index], bitmaps]))


def test_metric_inferencer_and_visualiser_take_them(masks, bitmaps, tmp_path):
    truth = dict(images=[dict(id=1, width=WIDTH, height=HEIGHT)], categories=[dict(id=1, name='a')], annotations=[])
    for number, run in enumerate(encode_mask_results(bitmaps[:3].numpy()), start=1):
        truth['annotations'].append(dict(
            id=number, image_id=1, category_id=1, bbox=[2, 3, 18, 15], iscrowd=0, area=float(coco_mask.area(run)),
            segmentation={**run, 'counts': run['counts'].decode()}))
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    sample = DetDataSample(pred_instances=instances(masks), metainfo=dict(img_id=1, ori_shape=(HEIGHT, WIDTH)))
    metric = METRICS.build(dict(type='mmdet.CocoMetric', ann_file=str(tmp_path / 'truth.json'), metric='segm'))
    metric.dataset_meta = dict(classes=('a', ))
    metric.process({}, [sample.to_dict()])
    assert metric.evaluate(1)['coco/segm_mAP'] == 1.0

    dump = METRICS.build(dict(type='mmdet.DumpDetResults', out_file_path=str(tmp_path / 'dump.pkl')))
    dump.process({}, [sample.to_dict()])
    dumped = [coco_mask.decode(run) for run in dump.results[0]['pred_instances']['masks']]
    assert np.array_equal(np.stack(dumped), bitmaps.numpy())
    assert np.array_equal(masks.detach().cpu().numpy(), bitmaps.numpy())  # as LVISMetric does

    drawn = []
    for form in (masks, bitmaps):
        seed_everything(0)  # of the colours
        visualizer = DetLocalVisualizer(vis_backends=None, name=type(form).__name__)
        drawn.append(visualizer._draw_instances(np.zeros((HEIGHT, WIDTH, 3), np.uint8), instances(form)[:2], ['a'],
                                                [(255, 0, 0)]))
    assert np.array_equal(*drawn) and drawn[0].any()
    assert len(encode_mask_results(masks)) == 5  # as DetInferencer does


def test_head_encodes_in_evaluation_alone(mmdet_scope):
    head = MODELS.build(dict(
        type='YOLOv8InsHead', num_classes=2, in_channels=(16, 16, 16),
        test_cfg=ConfigDict(nms_pre=100, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.7), max_per_img=5)))
    outputs = head.eval()([torch.randn(1, 16, s, s) for s in (8, 4, 2)])
    meta = dict(img_shape=(48, 64), ori_shape=(75, 100), scale_factor=(0.64, 0.64))
    runner, hook = SimpleNamespace(model=nn.Sequential(head)), EncodedMasksHook()
    expected, = head.predict_by_feat(*outputs, [meta], rescale=True)
    for before, after in ((hook.before_val_epoch, hook.after_val_epoch),
                          (hook.before_test_epoch, hook.after_test_epoch)):
        before(runner)
        found, = head.predict_by_feat(*outputs, [meta], rescale=True)
        assert isinstance(found.masks, EncodedMasks) and torch.equal(found.masks.cpu(), expected.masks)
        after(runner)
        found, = head.predict_by_feat(*outputs, [meta], rescale=True)
        assert isinstance(found.masks, torch.Tensor)


def test_memory_does_not_grow_with_the_masks(monkeypatch):
    """60 bitmaps of the whole image would take 7.8 MB."""
    height, width, number = 270, 480, 60
    monkeypatch.setattr(encoded_masks, '_PIXELS_AT_ONCE', height * width)
    prototypes, coefficients = torch.zeros(8, 68, 120), torch.zeros(number, 8)
    boxes = torch.tensor([[0., 0., width, height]]).repeat(number, 1)

    def run():
        EncodedMasks.made(lambda chunk: masks_retina(coefficients[chunk], prototypes, boxes[chunk], (height, width),
                                                     (0, 0, 67.5, 120)), number, (height, width))

    assert peak_memory(run, torch.device('cpu')) < height * width * (1 + 16) + 2**18
