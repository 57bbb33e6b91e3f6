"""The box loss of YOLOv8."""
from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor, nn

from mmmamba.models.losses.ciou import complete_iou


@MODELS.register_module()
class CompleteIoULoss(nn.Module):
    """``loss_weight · Σ weight · (1 − CIoU) / avg_factor``, see :func:`complete_iou`.

    Args:
        loss_weight: Gain of the loss.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Tensor | float) -> Tensor:
        """Loss of boxes (N, 4), x1, y1, x2, y2, with a weight (N,) each."""
        return self.loss_weight * ((1 - complete_iou(pred, target)) * weight).sum() / avg_factor
