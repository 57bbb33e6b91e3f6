"""The head with masks: loss against the reference, targets, predictions, edge cases."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import mmmamba  # noqa: F401  # isort: skip  (before mmdet.structures, which needs mmcv's operators)
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmmamba.errors import InputError
from mmmamba.models.dense_heads.yolov8_ins_head import hide_overlaps

DATA = Path(__file__).parents[1] / 'data'
TEST_CFG = ConfigDict(nms_pre=30000, score_thr=0.001, nms=dict(type='nms', iou_threshold=0.7), max_per_img=300)
ITEMS = ('loss_bbox', 'loss_mask', 'loss_cls', 'loss_dfl')


def make_head(num_classes=7, kind='YOLOv8InsHead', **settings):
    return MODELS.build(
        dict(
            type=kind,
            num_classes=num_classes,
            train_cfg=dict(assigner=dict(type='BatchTaskAlignedAssigner')),
            test_cfg=TEST_CFG,
            **{'in_channels': (64, 128, 256), **settings}))


def instances(bboxes, labels, masks) -> InstanceData:
    return InstanceData(bboxes=torch.as_tensor(bboxes), labels=torch.as_tensor(labels),
                        masks=BitmapMasks(list(np.uint8(masks)), *np.shape(masks)[1:]))


def features(batch=2, sides=(8, 4, 2)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, c, s, s, generator=generator) for c, s in zip((64, 128, 256), sides)]


@pytest.mark.parametrize('case, overlap', [('overlap', True), ('separate', False), ('overlap_fullres', True)])
def test_loss_and_gradients_equal_reference(case, overlap):
    data = {name: torch.from_numpy(np.asarray(array)) for name, array in np.load(DATA / 'yolov8_seg_loss.npz').items()}
    raw = [data[f'raw{i}'].requires_grad_() for i in range(3)]
    coefficients, prototypes = data['coef'].requires_grad_(), data['proto'].requires_grad_()
    gt = []
    for i in range(3):
        own = data['batch_idx'] == i
        masks = data[f'masks_{case}']
        masks = masks[own] if case == 'separate' else torch.stack(
            [masks[i] == k + 1 for k in range(int(own.sum()))]) if own.any() else torch.zeros(0, *masks.shape[1:])
        gt.append(instances(data['gt_bboxes_xyxy'][own], data['labels'][own], masks.numpy()))
    sizes = [x.shape[-2] * x.shape[-1] for x in raw]
    levels = [x.unflatten(-1, map_.shape[-2:]) for x, map_ in zip(coefficients.split(sizes, dim=-1), raw)]
    losses = make_head(overlap_mask=overlap).loss_by_feat([x[:, 64:] for x in raw], [x[:, :64] for x in raw], levels,
                                                          prototypes, gt, [{}] * 3)
    items = torch.stack([losses[name] for name in ITEMS]) / 3
    torch.testing.assert_close(items, data[f'{case}.loss_items_box_seg_cls_dfl'], rtol=1e-5, atol=0)
    total = sum(losses.values())
    torch.testing.assert_close(total, data[f'{case}.loss_total_times_batch'], rtol=1e-5, atol=0)
    total.backward()
    source = 'separate' if case == 'separate' else 'overlap'
    wanted = {f'overlap.grad{i}': x for i, x in enumerate(raw)}
    wanted.update({f'{source}.grad_coef': coefficients, f'{source}.grad_proto': prototypes})
    for name, x in wanted.items():
        error = (x.grad - data[name]).norm() / data[name].norm()
        assert error < 1e-5, f'{name}: {error:.1e}'


def test_without_objects_every_parameter_still_has_a_gradient():
    head = make_head()
    empty = instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), np.zeros((0, 16, 16)))
    losses = head.loss_by_feat(*head(features()), [empty, empty], [{}] * 2)
    assert losses['loss_mask'] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters() if p.requires_grad)


def test_an_image_without_objects_leaves_the_others_loss_as_it_is():
    """The mean is over the batch's positives, times the images: an empty image doubles it."""
    head = make_head().eval()
    gt = instances([[4., 4., 40., 50.]], [3], np.ones((1, 16, 16)))
    empty = instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), np.zeros((0, 16, 16)))
    outputs = head(features())
    both = head.loss_by_feat(*outputs, [gt, empty], [{}] * 2)['loss_mask']
    first = [[x[:1] for x in levels] for levels in outputs[:3]]
    alone = head.loss_by_feat(*first, outputs[3][:1], [gt], [{}])['loss_mask']
    torch.testing.assert_close(both, 2 * alone)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_loss_is_computed_in_float32(dtype):
    head = make_head()
    outputs = head(features())
    low = [[x.to(dtype) for x in levels] for levels in outputs[:3]], outputs[3].to(dtype)
    gt = [instances([[4., 4., 40., 50.]], [3], np.ones((1, 16, 16)))] * 2
    with torch.autocast('cpu', torch.bfloat16):
        autocast = head.loss_by_feat(*low[0], low[1], gt, [{}] * 2)
    full = head.loss_by_feat(*[[x.float() for x in levels] for levels in low[0]], low[1].float(), gt, [{}] * 2)
    for name, loss in autocast.items():
        assert loss.dtype == torch.float32 and torch.equal(loss, full[name]), name


def test_masks_of_any_form_and_size_are_one_target():
    """Polygons and bitmaps of the images' size, and what PackMaskTargets makes, of a batch of two sizes."""
    polygon = np.array([8., 8., 40., 8., 40., 32., 8., 32.])
    mask = np.zeros((48, 64), np.uint8)
    mask[8:32, 8:40] = 1
    forms = PolygonMasks([[polygon]], 48, 64), BitmapMasks([mask], 48, 64)
    head = make_head().eval()
    outputs = head(features())
    losses = []
    for masks in forms:
        samples = [DetDataSample(gt_instances=InstanceData(bboxes=torch.tensor([[8., 8., 40., 32.]]),
                                                           labels=torch.tensor([1]), masks=masks)) for _ in range(2)]
        images = [torch.zeros(3, 48, 64), torch.zeros(3, 64, 64)]
        samples[1].gt_instances.masks = forms[1].pad((64, 64))
        preprocessor = MODELS.build(dict(type='DetDataPreprocessor', pad_mask=True))
        batch = preprocessor(dict(inputs=images, data_samples=samples), training=True)
        losses.append(head.loss_by_feat(*outputs, [s.gt_instances for s in batch['data_samples']], [{}] * 2))
    small = instances([[8., 8., 40., 32.]], [1], np.pad(mask, ((0, 16), (0, 0)))[None, ::4, ::4])
    losses.append(head.loss_by_feat(*outputs, [small, small], [{}] * 2))
    for other in losses[1:]:
        assert torch.equal(losses[0]['loss_mask'], other['loss_mask'])


@pytest.mark.parametrize('height, width', [(30, 50), (62, 34), (8, 9)])
def test_sizes_that_are_no_multiples_of_the_stride(height, width):
    head = make_head().eval()
    sides = [(-(-height // s), -(-width // s)) for s in (8, 16, 32)]
    outputs = head([torch.randn(1, c, *side) for c, side in zip((64, 128, 256), sides)])
    gt = instances([[0., 0., width, height]], [0], np.ones((1, height, width)))
    losses = head.loss_by_feat(*outputs, [gt], [{}])
    assert losses['loss_mask'] > 0
    meta = dict(img_shape=(height, width))
    result, = head.predict_by_feat(*outputs, [meta], cfg=ConfigDict(TEST_CFG, score_thr=0.0))
    assert result.masks.shape[1:] == (height, width)


def test_masks_that_do_not_cover_the_batch_are_refused():
    head = make_head()
    outputs = head(features())
    gt = instances([[4., 4., 40., 50.]], [3], np.ones((1, 48, 64)))
    with pytest.raises(InputError, match=r'masks of \(48, 64\) do not cover .* \(16, 16\): set pad_mask=True'):
        head.loss_by_feat(*outputs, [gt, gt], [{}] * 2)
    gt = InstanceData(bboxes=gt.bboxes, labels=gt.labels)
    with pytest.raises(InputError, match='LoadInstanceMasks'):
        head.loss_by_feat(*outputs, [gt, gt], [{}] * 2)


def test_smaller_objects_are_in_front():
    masks = torch.zeros(3, 4, 6, dtype=torch.bool)
    masks[0, 1:3, 1:3] = True
    masks[1, :, :4] = True
    masks[2, 2, 2] = True
    visible = hide_overlaps(masks)
    assert torch.equal(visible[2], masks[2]) and torch.equal(visible[0], masks[0] & ~masks[2])
    assert torch.equal(visible[1], masks[1] & ~masks[0] & ~masks[2])
    assert torch.equal(hide_overlaps(visible), visible)
    assert hide_overlaps(masks[:0]).shape == (0, 4, 6)


def test_boxes_are_those_of_the_head_without_masks():
    torch.manual_seed(0)
    head, plain = make_head().eval(), make_head(kind='YOLOv8Head').eval()
    plain.load_state_dict({key: value for key, value in head.state_dict().items() if key in plain.state_dict()})
    metas = [dict(img_shape=(48, 64), ori_shape=(75, 100), scale_factor=(0.64, 0.64))] * 2
    cfg = ConfigDict(TEST_CFG, score_thr=0.0, min_bbox_size=0, max_per_img=5)
    for rescale in (False, True):
        with_masks = head.predict_by_feat(*head(features()), metas, cfg=cfg, rescale=rescale)
        without = plain.predict_by_feat(*plain(features()), metas, cfg=cfg, rescale=rescale)
        for a, b in zip(with_masks, without):
            assert all(torch.equal(a[key], b[key]) for key in ('bboxes', 'scores', 'labels')) and len(a) == 5
            assert set(a.keys()) == {'bboxes', 'scores', 'labels', 'masks'}
            assert a.masks.shape == (5, *((75, 100) if rescale else (48, 64))) and a.masks.dtype == torch.bool


def test_mask_is_where_its_object_is():
    """One prototype that is a square, one coefficient: the mask of the original image, inside its box."""
    head = make_head(num_classes=2)
    scores = [torch.full((1, 2, s, s), -20.) for s in (8, 4, 2)]
    logits = [torch.zeros(1, 4, 16, s, s) for s in (8, 4, 2)]
    scores[1][0, 1, 2, 1] = 4.  # the cell whose centre is (24, 40)
    logits[1][0, torch.arange(4), torch.tensor([1, 1, 1, 1]), 2, 1] = 100.  # a box of 8, 24, 40, 56
    coefficients = [torch.zeros(1, 32, s, s) for s in (8, 4, 2)]
    coefficients[1][0, 5, 2, 1] = 1.
    prototypes = torch.zeros(1, 32, 16, 16)
    prototypes[0, 5] = -10.
    prototypes[0, 5, 8:16, 4:8] = 10.  # pixels 16 to 32, 32 to 64 of the input
    meta = dict(img_shape=(64, 60), ori_shape=(128, 120), scale_factor=(0.5, 0.5))
    result, = head.predict_by_feat(scores, [x.flatten(1, 2) for x in logits], coefficients, prototypes, [meta],
                                   rescale=True)
    expected = torch.zeros(128, 120, dtype=torch.bool)
    expected[64:112, 32:64] = True
    assert torch.equal(result.masks[0, :, 48], expected[:, 48]) and torch.equal(result.masks[0, 90], expected[90])
    assert (result.masks[0] ^ expected).sum() <= 2 * 9  # at the two corners, which resizing rounds


def test_padding_that_counts_as_picture_moves_no_mask():
    """mmdet's ``Pad`` in the test pipeline puts the padding into ``img_shape``."""
    torch.manual_seed(0)
    head = make_head().eval()
    outputs = head(features(batch=1))
    results = []
    for img_shape in ((45, 60), (64, 64)):
        meta = dict(img_shape=img_shape, ori_shape=(90, 120), scale_factor=(0.5, 0.5))
        results += head.predict_by_feat(*outputs, [meta], cfg=ConfigDict(TEST_CFG, score_thr=0.0), rescale=True)
    keys = [torch.cat([found.bboxes, found.scores[:, None]], dim=1) for found in results]
    same = (keys[0][:, None] == keys[1]).all(dim=2).nonzero()  # other boxes end at the border
    assert len(same) > 3
    assert all(torch.equal(results[0].masks[i], results[1].masks[j]) for i, j in same)
    assert any(results[0].masks[i].any() for i, _ in same)


def test_nothing_found_has_no_masks():
    head = make_head()
    outputs = head(features())
    meta = dict(img_shape=(64, 64), ori_shape=(99, 80), scale_factor=(0.8, 0.64))
    result, _ = head.predict_by_feat(*outputs, [meta] * 2, cfg=ConfigDict(TEST_CFG, score_thr=1.0), rescale=True)
    assert result.masks.shape == (0, 99, 80) and result.masks.dtype == torch.bool and 'coefficients' not in result
