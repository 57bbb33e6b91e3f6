"""Task-aligned assignment of a whole batch at once."""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmdet.registry import TASK_UTILS
from torch import Tensor

from mmmamba.models.losses import complete_iou


class BatchAssignment(NamedTuple):
    """What each of A priors is to predict, for B images."""

    labels: Tensor
    """(B, A), the class; of no meaning where the prior is background."""
    bboxes: Tensor
    """(B, A, 4), x1, y1, x2, y2 in pixels; of no meaning where the prior is background."""
    scores: Tensor
    """(B, A, C), the soft target on the class, 0 elsewhere."""
    foreground: Tensor
    """(B, A), bool."""
    gt_index: Tensor
    """(B, A), the ground truth among the image's G; 0 where the prior is background."""


@TASK_UTILS.register_module()
class BatchTaskAlignedAssigner:
    """YOLOv8's variant of the task-aligned assigner (TOOD, arXiv 2108.07755, section 3.2).

    A prior may serve a ground truth box if its centre lies inside. Of these the ``topk`` of highest alignment
    ``score^alpha · CIoU^beta`` are taken; a prior wanted by several boxes goes to the one of highest CIoU. The target
    score is the alignment, scaled so that a box's best prior gets the box's best CIoU.

    mmdet's ``TaskAlignedAssigner`` takes one image at a time and IoU instead of CIoU.

    Args:
        topk: Priors for each ground truth box.
        alpha: Power of the score.
        beta: Power of the CIoU.
        eps: Least distance of a centre to the sides, in pixels, and what keeps the scaling finite.
    """

    def __init__(self, topk: int = 10, alpha: float = 0.5, beta: float = 6.0, eps: float = 1e-9) -> None:
        self.topk = topk
        self.alpha = alpha
        self.beta = beta
        self.eps = eps

    @torch.no_grad()
    def __call__(self, pred_bboxes: Tensor, pred_scores: Tensor, priors: Tensor, gt_labels: Tensor, gt_bboxes: Tensor,
                 gt_valid: Tensor) -> BatchAssignment:
        """Assigns ground truth to priors.

        Args:
            pred_bboxes: (B, A, 4), x1, y1, x2, y2 in pixels.
            pred_scores: (B, A, C), probabilities.
            priors: (A, 2), centres x, y in pixels.
            gt_labels: (B, G), long; images of fewer than G boxes are padded.
            gt_bboxes: (B, G, 4), x1, y1, x2, y2 in pixels.
            gt_valid: (B, G), bool; False for padding.

        Returns:
            The assignment; all background if there is no box.
        """
        num_images, num_priors, _ = pred_scores.shape
        if gt_labels.shape[1] == 0:
            return BatchAssignment(
                gt_labels.new_zeros(num_images, num_priors), torch.zeros_like(pred_bboxes),
                torch.zeros_like(pred_scores), gt_valid.new_zeros(num_images, num_priors),
                gt_labels.new_zeros(num_images, num_priors))

        candidates = self._inside(priors, gt_bboxes) & gt_valid[..., None]  # (B, G, A), as all that follow
        overlaps = self._overlaps(pred_bboxes, gt_bboxes, candidates)
        scores = pred_scores.transpose(1, 2).gather(1, gt_labels[..., None].expand(-1, -1, num_priors))
        alignment = (scores.pow(self.alpha) * overlaps.pow(self.beta)).masked_fill(~candidates, 0)

        positive = torch.zeros_like(candidates)
        best = alignment.topk(min(self.topk, num_priors), dim=-1).indices
        positive.scatter_(-1, best, True)
        positive &= candidates
        contested = positive.sum(dim=1, keepdim=True) > 1
        winner = F.one_hot(overlaps.argmax(dim=1), gt_labels.shape[1]).transpose(1, 2).bool()
        positive = torch.where(contested, winner, positive)

        foreground = positive.any(dim=1)
        gt_index = positive.int().argmax(dim=1)
        labels = gt_labels.gather(1, gt_index)
        bboxes = gt_bboxes.gather(1, gt_index[..., None].expand(-1, -1, 4))

        alignment = alignment * positive
        best_overlap = (overlaps * positive).amax(dim=-1, keepdim=True)
        best_alignment = alignment.amax(dim=-1, keepdim=True)
        target = (alignment * best_overlap / (best_alignment + self.eps)).amax(dim=1)
        target_scores = torch.zeros_like(pred_scores).scatter_(-1, labels[..., None], (target * foreground)[..., None])
        return BatchAssignment(labels, bboxes, target_scores, foreground, gt_index)

    def _inside(self, priors: Tensor, gt_bboxes: Tensor) -> Tensor:
        left_top, right_bottom = gt_bboxes[:, :, None].chunk(2, dim=-1)
        margin = torch.cat([priors - left_top, right_bottom - priors], dim=-1)
        return margin.amin(dim=-1) > self.eps

    @staticmethod
    def _overlaps(pred_bboxes: Tensor, gt_bboxes: Tensor, candidates: Tensor) -> Tensor:
        """Computes the CIoU, clamped at 0, of the candidates only: they are few."""
        overlaps = pred_bboxes.new_zeros(candidates.shape)
        image, gt, prior = candidates.nonzero(as_tuple=True)
        overlaps[image, gt, prior] = complete_iou(gt_bboxes[image, gt], pred_bboxes[image, prior]).clamp(min=0)
        return overlaps
