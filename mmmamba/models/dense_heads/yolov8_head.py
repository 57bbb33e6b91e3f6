"""YOLOv8's decoupled, anchor-free head."""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmmamba.errors import InputError
from mmmamba.layers import ConvNormAct
from mmmamba.layers.common import NormLayer
from mmmamba.models.dense_heads.clipped_heads import ClippedBoxes
from mmmamba.models.task_modules import BatchAssignment
from mmmamba.models.utils import norm_layer_from_cfg


@MODELS.register_module()
class YOLOv8Head(ClippedBoxes, BaseDenseHead):
    """Two branches for each level, two 3x3 convolutions and a 1x1 each: class scores, and box sides as distributions.

    A side's distance from the cell's centre, in strides, is the expectation of a softmax over ``reg_max`` bins (the
    distribution focal loss's representation, arXiv 2006.04388).

    Args:
        num_classes: Classes.
        in_channels: Channels of the levels, finest first.
        strides: Strides of the levels, in pixels.
        reg_max: Bins of a side's distribution.
        loss_cls: Classification loss on soft targets.
        loss_bbox: Box loss.
        loss_dfl: Loss of the sides' distributions.
        train_cfg: ``assigner``: config of the assigner. None for a head that only predicts.
        test_cfg: ``score_thr``, ``nms_pre``, ``nms``, ``max_per_img``, ``min_bbox_size`` of mmdet's dense heads.
        norm_cfg: mmdet's normalisation config.
        init_cfg: mmengine's initialisation config.

    Raises:
        InputError: ``in_channels`` and ``strides`` differ in number.
    """

    def __init__(self, num_classes: int, in_channels: Sequence[int], strides: Sequence[int] = (8, 16, 32),
                 reg_max: int = 16,
                 loss_cls: dict = dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.5),  # noqa: B006  (never written)
                 loss_bbox: dict = dict(type='CompleteIoULoss', loss_weight=7.5),  # noqa: B006
                 loss_dfl: dict = dict(type='DistributionFocalLoss', loss_weight=1.5),  # noqa: B006
                 train_cfg: dict | None = None, test_cfg: dict | None = None, norm_cfg: dict | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        if len(in_channels) != len(strides):
            raise InputError(f'in_channels names {len(in_channels)} levels, strides {len(strides)}')
        self.num_classes = self.cls_out_channels = num_classes
        self.use_sigmoid_cls = True  # read by BaseDenseHead
        self.in_channels = tuple(in_channels)
        self.strides = tuple(strides)
        self.reg_max = reg_max
        self.train_cfg = train_cfg
        self.test_cfg = test_cfg
        self.assigner = TASK_UTILS.build(train_cfg['assigner']) if train_cfg else None
        self.prior_generator = TASK_UTILS.build(dict(type='MlvlPointGenerator', strides=list(strides), offset=0.5))
        self.bbox_coder = TASK_UTILS.build(dict(type='DistancePointBBoxCoder'))
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.loss_dfl = MODELS.build(loss_dfl)

        norm_layer = norm_layer_from_cfg(norm_cfg)
        reg_channels = max(16, in_channels[0] // 4, 4 * reg_max)
        cls_channels = max(in_channels[0], min(num_classes, 100))
        self.reg_branches = nn.ModuleList(
            conv_branch(channels, reg_channels, 4 * reg_max, 1.0, norm_layer) for channels in in_channels)
        # The class branches start from five objects in an image of 640 x 640, spread over the cells of a level.
        self.cls_branches = nn.ModuleList(
            conv_branch(channels, cls_channels, num_classes, math.log(5 / num_classes / (640 / stride)**2), norm_layer)
            for channels, stride in zip(in_channels, strides))
        self.project = nn.Parameter(torch.arange(reg_max, dtype=torch.float), requires_grad=False)

    def forward(self, feats: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Computes the raw predictions.

        Args:
            feats: (B, in_channels[i], H_i, W_i).

        Returns:
            Class scores (logits), (B, num_classes, H_i, W_i), and box logits, (B, 4·reg_max, H_i, W_i): left, top,
            right, bottom, ``reg_max`` bins each.

        Raises:
            InputError: The maps have not the levels and channels that the head was made for.
        """
        channels = tuple(feat.shape[1] for feat in feats)
        if channels != self.in_channels:
            raise InputError(f'YOLOv8Head was made for maps of {self.in_channels} channels, got {channels}')
        # Not mmdet's multi_apply, which PyTorch 2.4 cannot compile.
        return ([branch(feat) for branch, feat in zip(self.cls_branches, feats)],
                [branch(feat) for branch, feat in zip(self.reg_branches, feats)])

    def distances(self, bbox_logits: Tensor) -> Tensor:
        """Returns the expected distances (..., 4), in strides, of box logits (..., 4·reg_max)."""
        shares = bbox_logits.unflatten(-1, (4, self.reg_max)).softmax(dim=-1)
        # By a column rather than a vector, which OpenCV does not read in an exported file.
        return (shares @ self.project.to(bbox_logits)[:, None]).squeeze(-1)

    def loss_by_feat(self, cls_scores: list[Tensor], bbox_preds: list[Tensor], batch_gt_instances: list[InstanceData],
                     batch_img_metas: list[dict],
                     batch_gt_instances_ignore: list[InstanceData] | None = None) -> dict[str, Tensor]:
        """Losses of a batch (YOLOv8's: class BCE, CIoU and DFL, all over the sum of the target scores).

        Each is multiplied by the images of a step, over all processes, as the recipe's learning rate expects.
        All arithmetic is in float32, whatever the predictions are.

        Args:
            cls_scores: Class logits of each level, (B, num_classes, H, W).
            bbox_preds: Box logits of each level, (B, 4·reg_max, H, W).
            batch_gt_instances: ``bboxes`` (x1, y1, x2, y2 in pixels) and ``labels`` of each image.
            batch_img_metas: Not used: priors in the padding of an image are background as any other.
            batch_gt_instances_ignore: Not used: YOLOv8 has no regions to ignore.

        Returns:
            ``loss_cls``, ``loss_bbox`` and ``loss_dfl``.
        """
        return self._losses_and_targets(cls_scores, bbox_preds, batch_gt_instances)[0]

    def _losses_and_targets(self, cls_scores: list[Tensor], bbox_preds: list[Tensor],
                            batch_gt_instances: list[InstanceData]) -> tuple[dict[str, Tensor], BatchAssignment]:
        with torch.autocast(cls_scores[0].device.type, enabled=False):
            scores = flatten([score.float() for score in cls_scores])
            logits = flatten([pred.float() for pred in bbox_preds])
            points = torch.cat(self.prior_generator.grid_priors(
                [score.shape[-2:] for score in cls_scores], scores.dtype, scores.device, with_stride=True))
            priors, strides = points[:, :2], points[:, 2:3]
            bboxes = self.bbox_coder.decode(priors.expand(len(logits), -1, -1), self.distances(logits) * strides)

            targets = self.assigner(bboxes.detach(), scores.detach().sigmoid(), priors,
                                    *_pad_gt(batch_gt_instances, scores))
            avg_factor = reduce_mean(targets.scores.sum()).clamp(min=1)
            loss_cls = self.loss_cls(scores, targets.scores, avg_factor=avg_factor)
            if targets.foreground.any():
                loss_bbox, loss_dfl = self._box_losses(bboxes, logits, targets, priors, strides, avg_factor)
            else:  # a zero that still hangs on the box branch, as DistributedDataParallel wants all gradients
                loss_bbox = loss_dfl = logits.sum() * 0
        num_images = len(scores) * get_world_size()
        losses = dict(loss_cls=loss_cls, loss_bbox=loss_bbox, loss_dfl=loss_dfl)
        return {name: loss * num_images for name, loss in losses.items()}, targets

    def _box_losses(self, bboxes, logits, targets, priors, strides, avg_factor) -> tuple[Tensor, Tensor]:
        foreground = targets.foreground
        weight = targets.scores.sum(dim=-1)[foreground]
        target = targets.bboxes[foreground]
        prior = priors.expand_as(bboxes[..., :2])[foreground]
        stride = strides.expand_as(bboxes[..., :1])[foreground]
        loss_bbox = self.loss_bbox(bboxes[foreground] / stride, target / stride, weight, avg_factor)

        sides = self.bbox_coder.encode(prior / stride, target / stride, max_dis=self.reg_max - 1, eps=0.01)
        loss_dfl = self.loss_dfl(logits[foreground].reshape(-1, self.reg_max), sides.reshape(-1),
                                 weight.repeat_interleave(4), avg_factor=4 * avg_factor)
        return loss_bbox, loss_dfl

    def predict_by_feat(self, cls_scores: list[Tensor], bbox_preds: list[Tensor], batch_img_metas: list[dict],
                        cfg: dict | None = None, rescale: bool = False, with_nms: bool = True) -> list[InstanceData]:
        """Makes the boxes of each image from the raw predictions: decoding, score threshold, class-wise NMS.

        Args:
            cls_scores: Class logits of each level, (B, num_classes, H, W).
            bbox_preds: Box logits of each level, (B, 4·reg_max, H, W).
            batch_img_metas: ``img_shape``, and ``scale_factor`` and ``ori_shape`` where ``rescale``.
            cfg: Used instead of ``test_cfg``.
            rescale: Return boxes in the pixels of the original image.
            with_nms: Whether to suppress duplicates.

        Returns:
            ``bboxes`` (x1, y1, x2, y2) inside the picture, ``scores`` and ``labels`` of each image, best first.
        """
        with torch.autocast(cls_scores[0].device.type, enabled=False):
            return super().predict_by_feat(
                [score.float() for score in cls_scores], self.distance_maps(bbox_preds), cfg=cfg,
                batch_img_metas=batch_img_metas, rescale=rescale, with_nms=with_nms)

    def distance_maps(self, bbox_preds: list[Tensor]) -> list[Tensor]:
        """Returns the expected distances in pixels, float32 (B, 4, H, W), of the box logits of each level."""
        return [(self.distances(pred.float().permute(0, 2, 3, 1)) * stride).permute(0, 3, 1, 2)
                for pred, stride in zip(bbox_preds, self.strides)]


def conv_branch(in_channels: int, channels: int, out_channels: int, bias: float,
                norm_layer: NormLayer) -> nn.Sequential:
    """Makes two 3x3 convolutions and a 1x1 convolution whose bias starts from ``bias``."""
    last = nn.Conv2d(channels, out_channels, 1)
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(ConvNormAct(in_channels, channels, 3, norm_layer=norm_layer),
                         ConvNormAct(channels, channels, 3, norm_layer=norm_layer), last)


def flatten(maps: list[Tensor]) -> Tensor:
    """Maps (B, C, H_i, W_i) of all levels as one (B, Σ H_i·W_i, C)."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)


def _pad_gt(instances: list[InstanceData], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (B, G), boxes (B, G, 4) and validity (B, G) of images with at most G boxes each; boxes as ``like``."""
    labels = pad_sequence([instance.labels.to(like.device, torch.long) for instance in instances], batch_first=True)
    bboxes = pad_sequence([instance.bboxes.to(like) for instance in instances], batch_first=True)
    valid = pad_sequence([like.new_ones(len(instance), dtype=torch.bool) for instance in instances], batch_first=True)
    return labels, bboxes, valid
