"""Losses that mmdet does not have."""
from mmmamba.models.losses.ciou import complete_iou
from mmmamba.models.losses.complete_iou_loss import CompleteIoULoss

__all__ = ['CompleteIoULoss', 'complete_iou']
