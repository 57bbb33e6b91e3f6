"""The head: loss against the reference, shapes, decoding, edge cases."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmmamba.errors import InputError

DATA = Path(__file__).parents[1] / 'data'
TEST_CFG = ConfigDict(nms_pre=30000, score_thr=0.001, nms=dict(type='nms', iou_threshold=0.7), max_per_img=300)


def make_head(num_classes=7, **settings):
    return MODELS.build(
        dict(
            type='YOLOv8Head',
            num_classes=num_classes,
            train_cfg=dict(assigner=dict(type='BatchTaskAlignedAssigner')),
            **{'in_channels': (64, 128, 256), **settings}))


def instances(bboxes, labels) -> InstanceData:
    return InstanceData(bboxes=bboxes, labels=labels)


def test_loss_and_gradients_equal_reference():
    data = {name: torch.from_numpy(np.asarray(array)) for name, array in np.load(DATA / 'yolov8_loss.npz').items()}
    raw = [data[f'raw{i}'].requires_grad_() for i in range(3)]
    images = [data['batch_idx'] == i for i in range(3)]
    losses = make_head().loss_by_feat([x[:, 64:] for x in raw], [x[:, :64] for x in raw],
                                      [instances(data['gt_bboxes_xyxy'][i], data['labels'][i]) for i in images],
                                      [{}] * 3)
    items = torch.stack([losses['loss_bbox'], losses['loss_cls'], losses['loss_dfl']]) / 3
    torch.testing.assert_close(items, data['loss_items_box_cls_dfl'], rtol=1e-5, atol=0)
    total = sum(losses.values())
    torch.testing.assert_close(total.double(), data['loss_total_times_batch'], rtol=1e-5, atol=0)
    total.backward()
    for i in range(3):
        expected = data[f'grad{i}']
        assert (raw[i].grad - expected).norm() / expected.norm() < 1e-5


def test_forward_shapes_and_initial_bias():
    head = make_head(num_classes=5)
    feats = [torch.zeros(2, c, s, s + 1) for c, s in ((64, 12), (128, 6), (256, 3))]
    scores, logits = head(feats)
    assert [tuple(x.shape) for x in scores] == [(2, 5, 12, 13), (2, 5, 6, 7), (2, 5, 3, 4)]
    assert [tuple(x.shape) for x in logits] == [(2, 64, 12, 13), (2, 64, 6, 7), (2, 64, 3, 4)]
    for stride, cls_branch, reg_branch in zip((8, 16, 32), head.cls_branches, head.reg_branches):
        assert cls_branch[-1].bias.detach().numpy() == pytest.approx(np.log(5 / 5 / (640 / stride)**2))
        assert (reg_branch[-1].bias == 1).all()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_loss_is_computed_in_float32(dtype):
    torch.manual_seed(0)
    head = make_head()
    scores = [torch.randn(2, 7, s, s).to(dtype) for s in (8, 4, 2)]
    logits = [torch.randn(2, 64, s, s).to(dtype) * 50 for s in (8, 4, 2)]
    gt = [instances(torch.tensor([[4., 4., 40., 50.]]), torch.tensor([3]))] * 2
    with torch.autocast('cpu', torch.bfloat16):
        low = head.loss_by_feat(scores, logits, gt, [{}] * 2)
    full = head.loss_by_feat([x.float() for x in scores], [x.float() for x in logits], gt, [{}] * 2)
    for name, value in full.items():
        assert low[name].dtype == torch.float32
        torch.testing.assert_close(low[name], value)


def test_images_without_objects_give_a_gradient_to_every_parameter():
    head = make_head()
    feats = [torch.randn(2, c, s, s) for c, s in ((64, 8), (128, 4), (256, 2))]
    empty = instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    losses = head.loss_by_feat(*head(feats), [empty, empty], [{}] * 2)
    assert losses['loss_bbox'] == 0 and losses['loss_dfl'] == 0 and losses['loss_cls'] > 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters() if p.requires_grad)


def test_prediction_decodes_boxes_and_undoes_the_scale():
    head = make_head(num_classes=2, test_cfg=TEST_CFG)
    scores = [torch.full((1, 2, s, s), -20.) for s in (8, 4, 2)]
    logits = [torch.zeros(1, 4, 16, s, s) for s in (8, 4, 2)]
    scores[1][0, 1, 2, 1] = 4.  # the cell whose centre is (24, 40)
    logits[1][0, torch.arange(4), torch.tensor([1, 0, 1, 1]), 2, 1] = 100.  # one-hot: l 1, t 0, r 1, b 1 strides
    meta = dict(img_shape=(64, 64), ori_shape=(128, 128), scale_factor=(0.5, 0.5))
    result, = head.predict_by_feat(scores, [x.flatten(1, 2) for x in logits], batch_img_metas=[meta], rescale=True)
    assert result.labels.tolist() == [1]
    assert result.scores.item() == pytest.approx(torch.tensor(4.).sigmoid().item())
    torch.testing.assert_close(result.bboxes, torch.tensor([[16., 80., 80., 112.]]))


def test_one_box_may_carry_several_labels():
    head = make_head(num_classes=3, test_cfg=TEST_CFG)
    scores = [torch.full((1, 3, s, s), -20.) for s in (8, 4, 2)]
    scores[0][0, 0, 3, 3], scores[0][0, 2, 3, 3] = 2., 1.
    logits = [torch.zeros(1, 64, s, s) for s in (8, 4, 2)]
    result, = head.predict_by_feat(scores, logits, batch_img_metas=[dict(img_shape=(64, 64))])
    assert result.labels.tolist() == [0, 2]


def test_four_levels_from_p2():
    """Strides 4 to 32: shapes, initial biases, the boxes of the finest level, and a gradient for every parameter."""
    torch.manual_seed(0)
    strides, sides = (4, 8, 16, 32), (16, 8, 4, 2)
    head = make_head(2, in_channels=(32, 64, 128, 256), strides=strides, test_cfg=TEST_CFG)
    scores, logits = head([torch.randn(1, c, s, s) for c, s in zip(head.in_channels, sides)])
    assert [tuple(x.shape) for x in scores] == [(1, 2, s, s) for s in sides]
    assert [tuple(x.shape) for x in logits] == [(1, 64, s, s) for s in sides]
    for stride, branch in zip(strides, head.cls_branches):
        assert branch[-1].bias.detach().numpy() == pytest.approx(np.log(5 / 2 / (640 / stride)**2))

    small = instances(torch.tensor([[20., 36., 26., 42.]]), torch.tensor([1]))  # holds centres of P2's cells
    losses = head.loss_by_feat(scores, logits, [small], [{}])
    assert losses['loss_bbox'] > 0 and losses['loss_dfl'] > 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters() if p.requires_grad)
    assert head.reg_branches[0][-1].weight.grad.any()

    scores = [torch.full((1, 2, s, s), -20.) for s in sides]
    logits = [torch.zeros(1, 4, 16, s, s) for s in sides]
    scores[0][0, 1, 9, 5] = 4.  # the cell whose centre is (22, 38)
    logits[0][0, :, 1, 9, 5] = 100.  # one stride to each side
    result, = head.predict_by_feat(scores, [x.flatten(1, 2) for x in logits], [dict(img_shape=(64, 64))])
    assert result.labels.tolist() == [1]
    torch.testing.assert_close(result.bboxes, torch.tensor([[18., 34., 26., 42.]]))


def test_levels_must_match():
    with pytest.raises(InputError, match='levels'):
        make_head(strides=(8, 16))
    with pytest.raises(InputError, match=r'made for maps of \(64, 128, 256\) channels, got \(64, 128\)'):
        make_head()([torch.zeros(1, 64, 4, 4), torch.zeros(1, 128, 2, 2)])
