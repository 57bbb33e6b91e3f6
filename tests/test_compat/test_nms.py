from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mmmamba  # noqa: F401  (supplies mmcv's operators)
from mmmamba.compat import nms as module
from mmmamba.compat.nms import nms, softnms

pytestmark = pytest.mark.usefixtures('both_ways')


def oracle(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> list[int]:
    """One pair after the other, in float32."""
    b = boxes.float().numpy()
    one = np.float32(offset)
    kept: list[int] = []
    for i in sorted(range(len(b)), key=lambda i: (-scores[i].item(), i)):
        for j in kept:
            w = max(min(b[i, 2], b[j, 2]) - max(b[i, 0], b[j, 0]) + one, np.float32(0))
            h = max(min(b[i, 3], b[j, 3]) - max(b[i, 1], b[j, 1]) + one, np.float32(0))
            area_i, area_j = ((c[2] - c[0] + one) * (c[3] - c[1] + one) for c in (b[i], b[j]))
            with np.errstate(invalid='ignore', divide='ignore'):
                if w * h / (area_j + area_i - w * h) > np.float32(iou_threshold):
                    break
        else:
            kept.append(i)
    return kept


def crowd(n: int, seed: int = 0, grid: float = 0.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * 60
    boxes = torch.cat((corner, corner + torch.rand(n, 2, generator=generator) * 40), 1)
    return ((boxes / grid).round() * grid if grid else boxes), torch.rand(n, generator=generator)


@st.composite
def arbitrary_boxes(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Few integer coordinates and scores: ties, boxes without area, turned inside out, equal ones."""
    n = draw(st.integers(0, 25))
    coordinates = draw(st.lists(st.integers(-3, 6), min_size=4 * n, max_size=4 * n))
    scores = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=n, max_size=n))
    return torch.tensor(coordinates, dtype=torch.float32).view(n, 4), torch.tensor(scores)


@settings(deadline=None, max_examples=200)
@given(arbitrary_boxes(), st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0]), st.sampled_from([0, 1]))
def test_equals_the_oracle(sample: tuple[Tensor, Tensor], threshold: float, offset: int):
    boxes, scores = sample
    assert nms(boxes, scores, threshold, offset).tolist() == oracle(boxes, scores, threshold, offset)


@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.9])
@pytest.mark.parametrize('grid', [0.0, 4.0])
def test_blocks_and_chunks_change_nothing(threshold: float, grid: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, 'BLOCK', 17)
    monkeypatch.setattr(module, 'MAX_PAIRS', 23)
    boxes, scores = crowd(200, grid=grid)
    assert nms(boxes, scores, threshold, 0).tolist() == oracle(boxes, scores, threshold, 0)


def test_suppresses_above_and_not_at_the_threshold():
    boxes = torch.tensor([[0., 0., 4., 1.], [0., 0., 2., 1.]])  # IoU exactly 0.5
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.5, 0).tolist() == [0, 1]
    assert nms(boxes, scores, 0.4999, 0).tolist() == [0]


def test_the_first_of_equal_boxes_wins():
    boxes = torch.tensor([[0., 0., 4., 4.]]).repeat(5, 1)
    assert nms(boxes, torch.full((5,), 0.5), 0.5, 0).tolist() == [0]


def test_a_suppressed_box_suppresses_nothing():
    boxes = torch.tensor([[0., 0., 10., 1.], [3., 0., 13., 1.], [6., 0., 16., 1.]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5, 0).tolist() == [0, 2]


def test_empty():
    keep = nms(torch.empty(0, 4), torch.empty(0), 0.5, 0)
    assert keep.shape == (0,) and keep.dtype == torch.int64


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype):
    boxes, scores = (t.to(dtype) for t in crowd(200))
    assert nms(boxes, scores, 0.5, 0).tolist() == oracle(boxes, scores, 0.5, 0)


def test_not_a_number_overlaps_nothing():
    boxes, scores = crowd(60)
    boxes[::7] = float('nan')
    boxes[::11, 2] = float('inf')
    kept = nms(boxes, scores, 0.3, 0).tolist()
    assert set(range(0, 60, 7)) <= set(kept)
    finite = boxes.isfinite().all(1)
    index = finite.nonzero().squeeze(1)
    expected = index[nms(boxes[finite], scores[finite], 0.3, 0)].tolist()
    assert [i for i in kept if finite[i]] == expected


def test_a_negative_threshold_is_refused():
    with pytest.raises(ValueError, match='negative'):
        nms(*crowd(3), -0.1, 0)


@pytest.mark.parametrize('split_thr', [10000, 10])
def test_batched_nms_of_mmcv(split_thr: int):
    from mmcv.ops import batched_nms
    boxes, scores = crowd(300)
    classes = torch.randint(0, 5, (300,), generator=torch.Generator().manual_seed(1))
    dets, keep = batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.5, split_thr=split_thr))
    expected = [int(members[k]) for c in range(5) for members in [(classes == c).nonzero().squeeze(1)]
                for k in oracle(boxes[members], scores[members], 0.5, 0)]
    assert sorted(keep.tolist()) == sorted(expected)
    assert torch.equal(dets, torch.cat((boxes[keep], scores[keep, None]), 1))
    assert (scores[keep].diff() <= 0).all()


def test_numpy_and_score_threshold_of_mmcv():
    from mmcv.ops import nms as mmcv_nms
    boxes, scores = crowd(100)
    dets, keep = mmcv_nms(boxes.numpy(), scores.numpy(), 0.5, score_threshold=0.4, max_num=3)
    assert isinstance(dets, np.ndarray) and dets.shape == (3, 5)
    assert keep.tolist() == oracle(boxes, scores, 0.5, 0)[:3] and (dets[:, 4] > 0.4).all()


def test_softnms_of_nothing():
    dets = torch.empty(0, 5)
    assert softnms(torch.empty(0, 4), torch.empty(0), dets, 0.3, 0.5, 1e-3, 1, 0).shape == (0,)


def test_soft_nms_of_mmcv_lowers_scores_by_hand_computed_factors():
    from mmcv.ops import soft_nms
    boxes = torch.tensor([[0., 0., 4., 1.], [0., 0., 2., 1.], [9., 9., 10., 10.]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    for method, factor in (('linear', 0.5), ('gaussian', float(np.exp(-0.25 / 0.5)))):
        dets, keep = soft_nms(boxes, scores, iou_threshold=0.3, sigma=0.5, method=method)
        assert keep.tolist() == [0, 2, 1]
        torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.7, 0.8 * factor]))
