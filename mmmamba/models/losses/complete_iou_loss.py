"""Complete IoU, as YOLOv8's assigner and box loss use it."""
from __future__ import annotations

import math

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class CompleteIoULoss(nn.Module):
    """YOLOv8's box loss, ``loss_weight · Σ weight · (1 − CIoU) / avg_factor``.

    mmdet's ``CIoULoss`` is another function: it drops the aspect-ratio term α·v where the IoU is at most 0.5 and clips
    the loss to [0, 2]. YOLOv8 keeps the term everywhere, and its assigner needs the same value without a loss,
    :func:`complete_iou`.

    Args:
        loss_weight: Gain of the loss.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Tensor | float) -> Tensor:
        """Returns the loss of boxes (N, 4), x1, y1, x2, y2, with a weight (N,) each."""
        return self.loss_weight * ((1 - complete_iou(pred, target)) * weight).sum() / avg_factor


def complete_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """Returns the CIoU of boxes in pairs (complete IoU, arXiv 1911.08287), in [-1.5, 1].

    Args:
        boxes1: (..., 4), x1, y1, x2, y2.
        boxes2: (..., 4), of a shape that broadcasts with ``boxes1``.
        eps: Keeps quotients finite for boxes without area.

    Returns:
        IoU − (distance of the centres / diagonal of the hull)² − α·v of each pair, (...).
    """
    w1, h1 = (boxes1[..., 2:] - boxes1[..., :2]).clamp(min=eps).unbind(dim=-1)
    w2, h2 = (boxes2[..., 2:] - boxes2[..., :2]).clamp(min=eps).unbind(dim=-1)
    overlap = (torch.minimum(boxes1[..., 2:], boxes2[..., 2:]) -
               torch.maximum(boxes1[..., :2], boxes2[..., :2])).clamp(min=0).prod(dim=-1)
    iou = overlap / (w1 * h1 + w2 * h2 - overlap + eps)

    hull = torch.maximum(boxes1[..., 2:], boxes2[..., 2:]) - torch.minimum(boxes1[..., :2], boxes2[..., :2])
    offset = (boxes1[..., :2] + boxes1[..., 2:] - boxes2[..., :2] - boxes2[..., 2:]) / 2
    distance = offset.square().sum(dim=-1) / (hull.square().sum(dim=-1) + eps)

    v = (torch.atan(w2 / h2) - torch.atan(w1 / h1)).square() * (4 / math.pi**2)
    with torch.no_grad():
        alpha = v / (1 - iou + v + eps)
    return iou - distance - alpha * v
