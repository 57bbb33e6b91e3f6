"""The assigner against the reference's targets and hand-made cases."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmmamba.models.losses import complete_iou
from mmmamba.models.task_modules import BatchTaskAlignedAssigner

DATA = Path(__file__).parents[1] / 'data'


def test_equals_reference():
    data = {name: torch.from_numpy(array) for name, array in np.load(DATA / 'task_aligned_assigner.npz').items()}
    out = BatchTaskAlignedAssigner()(data['pred_bboxes'], data['pred_scores'], data['anchor_points'],
                                     data['gt_labels'][..., 0], data['gt_bboxes'], data['pad_mask'][..., 0])
    foreground = data['fg_mask']
    assert torch.equal(out.foreground, foreground)
    torch.testing.assert_close(out.scores, data['target_scores'], rtol=1e-5, atol=1e-6)
    assert torch.equal(out.labels[foreground], data['target_labels'][foreground])
    assert torch.equal(out.bboxes[foreground], data['target_bboxes'][foreground])
    assert torch.equal(out.gt_index[foreground], data['target_gt_idx'][foreground])


def grid(side: int, stride: int) -> torch.Tensor:
    centres = (torch.arange(side) + 0.5) * stride
    return torch.cartesian_prod(centres, centres).flip(-1)


def assign(pred_bboxes, gt_bboxes, gt_labels, scores=None, **settings):
    priors = grid(8, 8)
    scores = torch.full((1, 64, 3), 0.5) if scores is None else scores
    valid = torch.ones(1, len(gt_labels), dtype=torch.bool)
    return BatchTaskAlignedAssigner(**settings)(pred_bboxes, scores, priors,
                                                torch.tensor(gt_labels, dtype=torch.long)[None],
                                                torch.tensor(gt_bboxes, dtype=torch.float).reshape(1, -1, 4), valid)


def test_no_boxes_is_all_background():
    out = assign(torch.rand(1, 64, 4), [], [])
    assert not out.foreground.any()
    assert (out.scores == 0).all()


def test_centres_outside_are_never_taken():
    gt = [8., 8., 40., 40.]
    out = assign(torch.tensor(gt).expand(1, 64, 4), [gt], [1], topk=64)
    inside = ((grid(8, 8) > 8) & (grid(8, 8) < 40)).all(dim=-1)
    assert torch.equal(out.foreground[0], inside)
    torch.testing.assert_close(out.scores[0, :, 1], inside.float())  # every prediction is perfect: CIoU 1
    assert (out.scores[0, :, [0, 2]] == 0).all()


def test_topk_is_by_alignment_and_the_best_prior_gets_the_best_ciou():
    gt = torch.tensor([0., 0., 64., 64.])
    pred = gt.repeat(1, 64, 1)
    pred[0, :, 2:] -= torch.arange(64)[:, None] * 0.5  # ever worse
    out = assign(pred, [gt.tolist()], [2], topk=5)
    assert out.foreground[0].nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    assert out.scores[0, 0, 2] == pytest.approx(1)
    ious = complete_iou(pred[0, :5], gt)
    torch.testing.assert_close(out.scores[0, :5, 2], (ious / ious[0])**6)


def test_contested_prior_goes_to_the_box_of_highest_ciou():
    wide, narrow = [0., 0., 64., 64.], [0., 0., 32., 32.]
    out = assign(torch.tensor(narrow).expand(1, 64, 4), [wide, narrow], [0, 1], topk=64)
    shared = ((grid(8, 8) > 0) & (grid(8, 8) < 32)).all(dim=-1)
    assert (out.labels[0, shared] == 1).all()
    assert (out.labels[0, ~shared] == 0).all()


def test_complete_iou_of_a_low_overlap_keeps_its_aspect_term():
    a, b = torch.tensor([0., 0., 10., 10.]), torch.tensor([9., 9., 29., 14.])
    iou = 1 / (100 + 100 - 1)
    distance = ((5 - 19)**2 + (5 - 11.5)**2) / (29**2 + 14**2)
    v = 4 / np.pi**2 * (np.arctan(4) - np.arctan(1))**2
    assert complete_iou(a, b).item() == pytest.approx(iou - distance - v / (1 - iou + v) * v, abs=1e-5)
    assert complete_iou(a, a).item() == pytest.approx(1, abs=1e-5)
    degenerate = torch.zeros(4)
    assert torch.isfinite(complete_iou(degenerate, degenerate))
