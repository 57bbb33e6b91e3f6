"""Non-maximum suppression with the argument order of ``mmcv._ext``: torchvision's, or in PyTorch on any device.

In PyTorch, ``nms`` finds the few pairs whose IoU can exceed the threshold, not comparing all: an IoU above ``t``
needs an overlap of more than ``t`` times the wider box in x, so that of two boxes with left edges ``x1 <= x1'`` the
second must start within ``(1 - t)`` of the first one's width. Sorted by their left edges, these candidates are
consecutive. ``batched_nms`` of mmcv moves each class to a place of its own, which makes the candidates fewer still.
"""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mmmamba.compat.torchvision_ops import compiled_ops, compute_dtype

BLOCK = 4096
"""Boxes examined at once: what the best of them suppress among the others never gets examined."""

MAX_PAIRS = 1 << 16
"""Pairs whose IoU is computed at once: the working set stays within a processor's caches."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Keeps the boxes that no better kept box overlaps by more than ``iou_threshold``.

    Ties in the score are won by the box that comes first (mmcv leaves them to a sort that is not stable). The IoU, and
    its comparison, are those of mmcv's CPU kernel in float32. That refuses other types; here, float64 boxes are taken
    as they are and half precision is computed in float32.

    Args:
        boxes: (N, 4) corners x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: boxes are suppressed above, not at, this IoU; not negative.
        offset: 0 or 1; a box is ``x2 - x1 + offset`` wide.

    Returns:
        (K,) int64 indices into ``boxes`` of the kept ones, by descending score.
    """
    if iou_threshold < 0:
        raise ValueError(f'nms: iou_threshold must not be negative, got {iou_threshold}')
    ops = compiled_ops(boxes.device) if offset == 0 else None
    if ops is not None:
        corners = boxes.detach().to(compute_dtype(boxes))
        # Rounded as mmcv's: torchvision compares an IoU in float32 with a threshold in float64.
        threshold = torch.tensor(iou_threshold, dtype=corners.dtype).item()
        return ops.nms(corners, scores.detach().to(corners.dtype), threshold)
    rest = scores.detach().sort(stable=True, descending=True).indices
    boxes = boxes.detach().to(compute_dtype(boxes))[rest]
    kept = []
    while rest.numel():
        block = boxes[:BLOCK]
        first, second = _overlapping_pairs(block, iou_threshold, offset)
        winners = _greedy(len(block), first, second)
        kept.append(rest[:BLOCK][winners])
        rest, boxes = rest[BLOCK:], boxes[BLOCK:]
        if rest.numel():
            alive = _not_suppressed(block[winners], boxes, iou_threshold, offset)
            rest, boxes = rest[alive], boxes[alive]
    return torch.cat(kept) if kept else rest


def _not_suppressed(winners: Tensor, boxes: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Returns (N,) bool: the ``boxes`` that no box of ``winners``, which do not suppress each other, suppresses."""
    both = torch.cat((winners, boxes))
    first, second = _overlapping_pairs(both, iou_threshold, offset)
    alive = torch.ones(len(both), dtype=torch.bool, device=boxes.device)
    alive[second[first < len(winners)]] = False
    return alive[len(winners):]


def _overlapping_pairs(boxes: Tensor, iou_threshold: float, offset: int) -> tuple[Tensor, Tensor]:
    """Indices ``first < second`` of all pairs of ``boxes`` whose IoU exceeds the threshold, in no particular order."""
    by_left = boxes[:, 0].sort(stable=True).indices
    x1, y1, x2, y2 = boxes[by_left].T.contiguous()
    width = x2 - x1 + offset
    area = width * (y2 - y1 + offset)
    # The slack covers the rounding of coordinates and IoU in float32: passing over pairs never changes a result.
    reach = x1 + (1 - iou_threshold) * width + 1e-5 * (1 + width.abs()) + 1e-6 * x1.abs()
    rows = torch.arange(len(boxes), device=boxes.device)
    count = (torch.searchsorted(x1, reach, right=True) - rows - 1).clamp_(min=0)
    threshold = torch.tensor(iou_threshold, dtype=boxes.dtype, device=boxes.device)
    found = []
    for part in _chunks(count):
        i, j = _expand(rows[part], count[part])
        h = torch.minimum(_take(y2, i), _take(y2, j)) - torch.maximum(_take(y1, i), _take(y1, j)) + offset
        meet = (h > 0).nonzero().squeeze(1)
        i, j, h = _take(i, meet), _take(j, meet), _take(h, meet)
        w = (torch.minimum(_take(x2, i), _take(x2, j)) - _take(x1, j) + offset).clamp_(min=0)
        inter = w * h
        over = (inter / (_take(area, i) + _take(area, j) - inter) > threshold).nonzero().squeeze(1)
        i, j = _take(by_left, _take(i, over)), _take(by_left, _take(j, over))
        found.append(torch.stack((torch.minimum(i, j), torch.maximum(i, j))))
    first, second = torch.cat(found, dim=1)
    return first, second


def _expand(rows: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs each of the consecutive ``rows`` with the ``count`` rows that follow it: two (count.sum(),) indices."""
    i = rows.repeat_interleave(count)
    shift = (rows + 1 + count - count.cumsum(0)).repeat_interleave(count)
    return i, shift + torch.arange(len(i), device=i.device)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Returns ``values[index]``, which takes PyTorch four times as long on the CPU."""
    return values.index_select(0, index)


def _chunks(count: Tensor) -> Iterator[slice]:
    """Yields consecutive ranges of rows with at most ``MAX_PAIRS`` pairs each, or of one row that has more.

    Args:
        count: (N,) number of pairs of each row.
    """
    total = count.cumsum(0).cpu().numpy()
    start, done = 0, 0
    while start < len(total):
        end = max(int(np.searchsorted(total, done + MAX_PAIRS, side='right')), start + 1)
        yield slice(start, end)
        start, done = end, total[end - 1]


def _greedy(n: int, first: Tensor, second: Tensor) -> Tensor:
    """Returns (n,) bool: which boxes survive when each survivor, taken in order, suppresses its partners.

    Boxes that no undecided box could suppress are survivors; their partners fall, and with these the pairs in which
    they would have suppressed others. Repeated until no pair is left, this decides as one box after the other would.

    Args:
        n: number of boxes, numbered from the best to the worst.
        first, second: (P,) the pairs; the first suppresses the second if it survives.
    """
    alive = torch.ones(n, dtype=torch.bool, device=first.device)
    while first.numel():
        challenged = torch.zeros_like(alive)
        challenged[second] = True
        alive[second[~challenged[first]]] = False
        undecided = challenged[first] & alive[first] & alive[second]
        first, second = first[undecided], second[undecided]
    return alive


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float,
            method: int, offset: int) -> Tensor:
    """Lowers the scores of overlapping boxes instead of removing them: Soft-NMS.

    Boxes lie in an array in which the best remaining one is swapped to the front, and a box that falls below
    ``min_score`` is overwritten by the last one, as in mmcv's kernel: equal scores are taken in the same order. Two
    empty boxes do not overlap; in mmcv, their IoU of 0/0 can make a score NaN.

    Args:
        boxes: (N, 4) corners.
        scores: (N,).
        dets: (N, 5) on the CPU; receives corners and new score of the K kept boxes, in the order of their selection.
        iou_threshold: overlap from which ``method`` 0 and 1 act.
        sigma: width of ``method`` 2.
        min_score: boxes whose score falls below are removed.
        method: 0 removes (naive), 1 scales by ``1 - IoU`` (linear), 2 by ``exp(-IoU^2 / sigma)`` (gaussian).
        offset: 0 or 1; a box is ``x2 - x1 + offset`` wide.

    Returns:
        (K,) int64 indices of the kept boxes.
    """
    # Rows x1, y1, x2, y2, score, area; float32 scalars, so that NumPy does not widen where the kernel does not.
    rows = torch.cat((boxes.detach().float().T, scores.detach().float()[None])).cpu().numpy()
    x1, y1, x2, y2 = rows[:4]
    rows = np.concatenate((rows, ((x2 - x1 + offset) * (y2 - y1 + offset))[None]))
    index = np.arange(rows.shape[1])
    threshold, spread, floor = np.float32(iou_threshold), np.float32(sigma), np.float32(min_score)
    n, i = len(index), 0
    while i < n:
        best = i + int(rows[4, i:n].argmax())
        rows[:, [i, best]] = rows[:, [best, i]]
        index[[i, best]] = index[[best, i]]
        others = rows[:, i + 1:n]
        top = rows[:, i]
        w = np.maximum(np.minimum(top[2], others[2]) - np.maximum(top[0], others[0]) + offset, 0)
        h = np.maximum(np.minimum(top[3], others[3]) - np.maximum(top[1], others[1]) + offset, 0)
        inter = w * h
        union = top[5] + others[5] - inter
        iou = np.divide(inter, union, out=np.zeros_like(inter), where=union != 0)
        if method == 2:
            others[4] *= np.exp(-(iou * iou) / spread)
        else:
            others[4] *= np.where(iou >= threshold, 0 if method == 0 else 1 - iou, 1)
        i += 1
        n = i + _compact(others, index[i:n], others[4] < floor)
    dets[:n] = torch.from_numpy(rows[:5, :n].T.copy())
    return torch.from_numpy(index[:n])


def _compact(rows: np.ndarray, index: np.ndarray, removed: np.ndarray) -> int:
    """Fills each ``removed`` place with the last column not removed, in place; returns how many columns remain."""
    n = int((~removed).sum())
    holes = np.flatnonzero(removed[:n])
    fillers = np.flatnonzero(~removed[n:])[::-1] + n
    rows[:, holes] = rows[:, fillers]
    index[holes] = index[fillers]
    return n
