"""YOLOv8's head with masks: prototypes of the image, and coefficients of each box."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from mmdet.models.utils import filter_scores_and_topk
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmmamba.errors import InputError
from mmmamba.layers import MaskPrototypes
from mmmamba.layers.common import recomputed
from mmmamba.models.dense_heads.mask_assembly import crop_to_boxes, mask_logits, masks_retina
from mmmamba.models.dense_heads.yolov8_head import YOLOv8Head, conv_branch, flatten
from mmmamba.models.encoded_masks import EncodedMasks
from mmmamba.models.task_modules import BatchAssignment
from mmmamba.models.utils import norm_layer_from_cfg


@MODELS.register_module()
class YOLOv8InsHead(YOLOv8Head):
    """YOLOv8's head with a third branch for each level, coefficients, and prototypes made of the finest level.

    A mask is the sigmoid of its coefficients' sum of the prototypes, cropped by its box (YOLACT, arXiv 1904.02689),
    at half the finest level's stride.

    Ground truth masks are in ``gt_instances.masks``, any of mmdet's, padded to the batch's size as
    ``DetDataPreprocessor(pad_mask=True)`` does; ``PackMaskTargets`` makes them small in the data workers.

    Args:
        num_prototypes: Prototypes, and coefficients of a mask.
        loss_mask: Loss of a mask's logits, without reduction.
        overlap_mask: Of objects that overlap, the smaller is in front and hides the other, as in YOLOv8's recipe.
        num_classes, in_channels, strides, reg_max, loss_cls, loss_bbox, loss_dfl: See :class:`YOLOv8Head`.
        train_cfg, test_cfg, norm_cfg, init_cfg: See :class:`YOLOv8Head`.

    Attributes:
        encode_masks: Predict :class:`EncodedMasks` instead of a tensor; see :func:`set_encode_masks`.
    """

    encode_masks = False

    def __init__(self, num_classes: int, in_channels: Sequence[int], strides: Sequence[int] = (8, 16, 32),
                 reg_max: int = 16, num_prototypes: int = 32,
                 loss_cls: dict = dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.5),  # noqa: B006  (never written)
                 loss_bbox: dict = dict(type='CompleteIoULoss', loss_weight=7.5),  # noqa: B006
                 loss_dfl: dict = dict(type='DistributionFocalLoss', loss_weight=1.5),  # noqa: B006
                 loss_mask: dict = dict(type='CrossEntropyLoss', use_sigmoid=True, reduction='none', loss_weight=7.5),  # noqa: B006, E501
                 overlap_mask: bool = True, train_cfg: dict | None = None, test_cfg: dict | None = None,
                 norm_cfg: dict | None = None, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(num_classes, in_channels, strides, reg_max, loss_cls, loss_bbox, loss_dfl, train_cfg,
                         test_cfg, norm_cfg, init_cfg)
        self.loss_mask = MODELS.build(loss_mask)
        self.overlap_mask = overlap_mask
        self.mask_stride = strides[0] // 2
        norm_layer = norm_layer_from_cfg(norm_cfg)
        self.prototypes = MaskPrototypes(in_channels[0], num_prototypes, norm_layer)
        channels = max(in_channels[0] // 4, num_prototypes)
        self.coefficient_branches = nn.ModuleList(
            conv_branch(level, channels, num_prototypes, 0.0, norm_layer) for level in in_channels)

    def forward(self, feats: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
        """Computes the raw predictions.

        Args:
            feats: (B, in_channels[i], H_i, W_i).

        Returns:
            Class scores and box logits as of :class:`YOLOv8Head`; coefficients of each level, (B, K, H_i, W_i);
            prototypes, (B, K, 2 H_0, 2 W_0).
        """
        cls_scores, bbox_preds = super().forward(feats)
        coefficients = [branch(feat) for branch, feat in zip(self.coefficient_branches, feats)]
        return cls_scores, bbox_preds, coefficients, self.prototypes(feats[0])

    def loss_by_feat(self, cls_scores: list[Tensor], bbox_preds: list[Tensor], coefficients: list[Tensor],  # type: ignore[override]
                     prototypes: Tensor, batch_gt_instances: list[InstanceData], batch_img_metas: list[dict],
                     batch_gt_instances_ignore: list[InstanceData] | None = None) -> dict[str, Tensor]:
        """Losses of a batch: those of :class:`YOLOv8Head`, and the masks'.

        The loss of a positive prior's mask is the mean, over its ground truth box, of the pixels' losses; that of the
        batch is the mean over all positive priors, times the images of a step, over all processes.

        Args:
            cls_scores, bbox_preds, coefficients, prototypes: What :meth:`forward` returned.
            batch_gt_instances: ``bboxes``, ``labels`` and ``masks`` of each image; the masks have the size of the
                batch's images, or of the prototypes.
            batch_img_metas: Not used.
            batch_gt_instances_ignore: Not used.

        Returns:
            ``loss_cls``, ``loss_bbox``, ``loss_dfl`` and ``loss_mask``.

        Raises:
            InputError: Images without masks, or masks of another size.
        """
        losses, targets = self._losses_and_targets(cls_scores, bbox_preds, batch_gt_instances)
        with torch.autocast(prototypes.device.type, enabled=False):
            losses['loss_mask'] = self._mask_loss(flatten([x.float() for x in coefficients]), prototypes.float(),
                                                  targets, batch_gt_instances)
        return losses

    def _mask_loss(self, coefficients: Tensor, prototypes: Tensor, targets: BatchAssignment,
                   batch_gt_instances: list[InstanceData]) -> Tensor:
        """Returns the loss of coefficients (B, A, K) and prototypes (B, K, h, w)."""
        losses = []
        for image, instances in enumerate(batch_gt_instances):
            positive = targets.foreground[image]
            if positive.any():
                masks = self._mask_targets(instances, prototypes)
                boxes = targets.bboxes[image, positive] / self.mask_stride
                # A map for each positive prior takes much memory; what it is made of takes little, and is kept.
                of_masks = partial(self._mask_losses, masks, targets.gt_index[image, positive], boxes)
                losses.append(recomputed(of_masks, coefficients[image, positive], prototypes[image]).sum())
        # Without positives, a zero that hangs on both branches, as DistributedDataParallel wants all gradients.
        total = torch.stack(losses).sum() if losses else (coefficients.sum() + prototypes.sum()) * 0
        num_positive = reduce_mean(targets.foreground.sum().to(total)).clamp(min=1)
        return total / num_positive * (len(coefficients) * get_world_size())

    def _mask_losses(self, masks: Tensor, index: Tensor, boxes: Tensor, coefficients: Tensor,
                     prototypes: Tensor) -> Tensor:
        """Returns the losses (P,) of the masks of the priors, each the mean over its box.

        Args:
            masks: Of the ground truth, bool (G, h, w).
            index: Which of them a prior has, (P,).
            boxes: (P, 4), in pixels of the masks.
            coefficients: (P, K).
            prototypes: (K, h, w).
        """
        losses = self.loss_mask(mask_logits(coefficients, prototypes), masks[index].to(prototypes))
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return crop_to_boxes(losses, boxes).sum(dim=(1, 2)) / areas

    def _mask_targets(self, instances: InstanceData, prototypes: Tensor) -> Tensor:
        """Returns an image's masks, bool (G, h, w), on the grid of the prototypes (B, K, h, w)."""
        if 'masks' not in instances:
            raise InputError('YOLOv8InsHead needs ground truth masks: load them with LoadInstanceMasks')
        height, width = prototypes.shape[-2:]
        masks = instances.masks.to_tensor(torch.bool, prototypes.device)
        size = tuple(masks.shape[1:])
        if masks.shape[1] > height or masks.shape[2] > width:  # of the images' size
            masks = masks[:, ::self.mask_stride, ::self.mask_stride]
        rows, columns = height - masks.shape[1], width - masks.shape[2]
        if not (0 <= rows <= 1 and 0 <= columns <= 1):  # 1 where the image's size is no multiple of the stride
            raise InputError(f'masks of {size} do not cover the batch, whose prototypes are {(height, width)}: set '
                             f'pad_mask=True in the data preprocessor, and mask_stride={self.mask_stride} in '
                             f'PackMaskTargets')
        masks = F.pad(masks, (0, columns, 0, rows))
        return hide_overlaps(masks) if self.overlap_mask else masks

    def predict_by_feat(self, cls_scores: list[Tensor], bbox_preds: list[Tensor], coefficients: list[Tensor],  # type: ignore[override]
                        prototypes: Tensor, batch_img_metas: list[dict], cfg: dict | None = None,
                        rescale: bool = False) -> list[InstanceData]:
        """Makes boxes and masks of each image from the raw predictions, masks of the boxes that NMS keeps.

        Args:
            cls_scores, bbox_preds, coefficients, prototypes: What :meth:`forward` returned.
            batch_img_metas: ``img_shape``, and ``scale_factor`` and ``ori_shape`` where ``rescale``. The picture is
                in the upper left corner of the network's input.
            cfg: Used instead of ``test_cfg``.
            rescale: Return boxes and masks in the pixels of the original image.

        Returns:
            ``bboxes``, ``scores`` and ``labels`` of each image as of :class:`YOLOv8Head`; ``masks``, bool (N, H, W) of
            the image that the boxes are in, or encoded.
        """
        with torch.autocast(prototypes.device.type, enabled=False):
            # Not YOLOv8Head's own, which has no coefficients. They travel where other heads have centernesses.
            found = super(YOLOv8Head, self).predict_by_feat(
                [score.float() for score in cls_scores], self.distance_maps(bbox_preds),
                [coefficient.float() for coefficient in coefficients], batch_img_metas=batch_img_metas, cfg=cfg,
                rescale=rescale)
            for instances, maps, meta in zip(found, prototypes.detach().float(), batch_img_metas):
                size = scaled = meta['img_shape'][:2]
                if rescale:  # the boxes' way: img_shape may have padding in it, if mmdet's Pad put it there
                    size = meta['ori_shape'][:2]
                    scaled = [min(round(side * scale), most)
                              for side, scale, most in zip(size, reversed(meta['scale_factor']), scaled)]
                instances.masks = self._masks(instances.pop('coefficients'), maps, instances.bboxes, size, scaled)
        return found

    def _masks(self, coefficients: Tensor, prototypes: Tensor, boxes: Tensor, size: Sequence[int],
               scaled_size: Sequence[int]) -> Tensor | EncodedMasks:
        """Makes an image's masks at a size, of which boxes are, from the prototypes of what it was scaled to."""
        height, width = scaled_size
        region = 0, 0, height / self.mask_stride, width / self.mask_stride

        def make(chunk: slice) -> Tensor:
            return masks_retina(coefficients[chunk], prototypes, boxes[chunk], size, region)

        return EncodedMasks.made(make, len(boxes), size) if self.encode_masks else make(slice(None))

    def _predict_by_feat_single(self, cls_score_list: list[Tensor], bbox_pred_list: list[Tensor],
                                score_factor_list: list[Tensor], mlvl_priors: list[Tensor], img_meta: dict,
                                cfg: dict | None, rescale: bool, with_nms: bool) -> InstanceData:
        """Makes an image's boxes as the parent's, with the ``coefficients`` of each (N, K)."""
        cfg = self.test_cfg if cfg is None else cfg
        levels = []
        for maps in zip(cls_score_list, bbox_pred_list, score_factor_list, mlvl_priors):
            scores, sides, coefficients = (x.flatten(1).T for x in maps[:3])
            scores, labels, _, kept = filter_scores_and_topk(
                scores.sigmoid(), cfg.get('score_thr', 0), cfg.get('nms_pre', -1),
                dict(sides=sides, coefficients=coefficients, priors=maps[3]))
            bboxes = self.bbox_coder.decode(kept['priors'], kept['sides'], max_shape=img_meta['img_shape'])
            levels.append(InstanceData(bboxes=bboxes, scores=scores, labels=labels, coefficients=kept['coefficients']))
        return self._bbox_post_process(InstanceData.cat(levels), cfg, rescale, with_nms, img_meta)


def set_encode_masks(model: nn.Module, encode: bool) -> None:
    """Has the heads with masks in a model predict them encoded, or not."""
    for module in model.modules():
        if isinstance(module, YOLOv8InsHead):
            module.encode_masks = encode


def hide_overlaps(masks: Tensor) -> Tensor:
    """Returns masks (G, h, w), bool, without the pixels that smaller ones cover."""
    if not len(masks):
        return masks
    order = masks.sum(dim=(1, 2)).argsort(descending=True, stable=True)
    depth = (1 + order.argsort())[:, None, None]  # the largest is 1, and at the back
    return masks & ((masks * depth).amax(dim=0) == depth)
