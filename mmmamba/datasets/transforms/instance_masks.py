"""Masks in the YOLO recipes: loading, the mosaic, and the small targets that the loss takes."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import cv2
import numpy as np
from mmdet.datasets.transforms import LoadAnnotations, Mosaic, PackDetInputs
from mmdet.registry import TRANSFORMS
from mmdet.structures.mask import BitmapMasks, PolygonMasks

Masks = Union[PolygonMasks, BitmapMasks]


@TRANSFORMS.register_module()
class LoadInstanceMasks(LoadAnnotations):
    """mmdet's ``LoadAnnotations`` of boxes and masks: polygons stay polygons, which cost least to move about.

    An image with a mask in run-length encoding, other than of an ignored object such as a crowd, has bitmaps.
    """

    def __init__(self) -> None:
        super().__init__(with_bbox=True, with_mask=True)

    def _load_masks(self, results: dict) -> None:
        masks = self._process_masks(results)
        if any(isinstance(mask, dict) and not ignored for mask, ignored in zip(masks, results['gt_ignore_flags'])):
            super()._load_masks(results)
            return
        # In floating point: mmdet's transforms of polygons cut off what integers cannot hold.
        polygons = [[np.zeros(6)] if isinstance(mask, dict) else [part.astype(np.float64) for part in mask]
                    for mask in masks]
        results['gt_masks'] = PolygonMasks(polygons, *results['ori_shape'])


@TRANSFORMS.register_module()
class MosaicWithMasks(Mosaic):
    """mmdet's ``Mosaic`` (same arguments, draws and boxes), which takes ``gt_masks`` along.

    mmdet's ``CachedMosaic`` does too, but it bends polygons at the border instead of cutting them, and mixes images of
    its own cache.
    """

    def transform(self, results: dict) -> dict:
        """Makes a mosaic of ``results`` and the three samples in ``results['mix_results']``."""
        tiles = [results, *results['mix_results']]
        # Labels stand for the objects' numbers meanwhile, so that those whose boxes the parent drops can be dropped.
        labels = np.concatenate([tile['gt_bboxes_labels'] for tile in tiles])
        numbers = np.split(np.arange(len(labels)), np.cumsum([len(tile['gt_bboxes_labels']) for tile in tiles])[:-1])
        first, *others = ({**tile, 'gt_bboxes_labels': own, 'gt_masks': None} for tile, own in zip(tiles, numbers))
        self._offsets: list[tuple[tuple[int, int], np.ndarray]] = []
        mosaic = super().transform({**first, 'mix_results': others})
        if not self._offsets:  # the parent did nothing, by its `prob`
            return results
        kept = mosaic['gt_bboxes_labels']
        masks = []
        for tile, own, (size, offset) in zip(tiles, numbers, self._offsets):
            shift = np.eye(3)
            shift[:2, 2] = offset
            masks.append(warp_masks(tile['gt_masks'][np.isin(own, kept)].resize(size), shift, mosaic['img_shape']))
        mosaic.update(gt_bboxes_labels=labels[kept], gt_masks=_join(masks))
        return mosaic

    def _mosaic_combine(self, loc: str, center_position_xy: Sequence[float],
                        img_shape_wh: Sequence[int]) -> tuple[tuple[int], tuple[int]]:
        """Notes where the parent puts an image."""
        paste, crop = super()._mosaic_combine(loc, center_position_xy, img_shape_wh)
        width, height = img_shape_wh
        self._offsets.append(((height, width), np.subtract(paste[:2], crop[:2])))
        return paste, crop


@TRANSFORMS.register_module()
class PackMaskTargets(PackDetInputs):
    """mmdet's ``PackDetInputs``, with masks on the grid of the prototypes, as ``YOLOv8InsHead``'s loss takes them.

    As in YOLOv8's recipe, polygons are filled at the image's size, with integer corners, and then made smaller
    (bilinear). That the data workers do it keeps polygons, and bitmaps of full size, away from the training process.

    Args:
        mask_stride: Pixels of the image to one of a mask, along a side.
        meta_keys: See mmdet's ``PackDetInputs``.
    """

    def __init__(self, mask_stride: int = 4,
                 meta_keys: Sequence[str] = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip',
                                             'flip_direction')) -> None:
        super().__init__(meta_keys)
        self.mask_stride = mask_stride

    def transform(self, results: dict) -> dict:
        """Packs a sample."""
        packed = super().transform(results)
        instances = packed['data_samples'].gt_instances
        instances.masks = StridedMasks.of(instances.masks, self.mask_stride)
        return packed


class StridedMasks(BitmapMasks):
    """Bitmaps of which each pixel stands for ``stride`` x ``stride`` of the image, and which are padded as that is.

    Args:
        masks: (N, height, width), uint8.
        stride: Along a side.
        image_size: Height and width of the image.
    """

    def __init__(self, masks: np.ndarray, stride: int, image_size: tuple[int, int]) -> None:
        super().__init__(masks, *masks.shape[1:])
        self.stride = stride
        self.image_size = image_size

    @classmethod
    def of(cls, masks: Masks, stride: int) -> StridedMasks:
        """Makes them of masks of the image's size."""
        rows, columns = -(-masks.height // stride), -(-masks.width // stride)
        small = np.zeros((len(masks), rows, columns), np.uint8)
        for out, mask in zip(small, masks):
            full = np.zeros((rows * stride, columns * stride), np.uint8)
            if isinstance(mask, np.ndarray):
                full[:masks.height, :masks.width] = mask
            else:
                for part in mask:  # by itself: where parts overlap, cv2 would leave a hole
                    cv2.fillPoly(full, [part.reshape(-1, 2).astype(np.int32)], 1)
            out[:] = cv2.resize(full, (columns, rows), interpolation=cv2.INTER_LINEAR)
        return cls(small, stride, (masks.height, masks.width))

    def pad(self, out_shape: Sequence[int], pad_val: int = 0) -> BitmapMasks:
        """Pads to what stands for an image of that height and width."""
        return super().pad(tuple(-(-side // self.stride) for side in out_shape), pad_val)

    def to_ndarray(self) -> np.ndarray:
        """Returns bitmaps of the image's size, as mmdet's visualiser (``browse_dataset.py``) draws them."""
        height, width = self.image_size
        return self.masks.repeat(self.stride, axis=1).repeat(self.stride, axis=2)[:, :height, :width]


def warp_masks(masks: Masks, matrix: np.ndarray, size: tuple[int, int]) -> Masks:
    """Applies an affine map (3, 3) of x, y, 1 to masks; the result has that height and width.

    Polygons are not cut: what lies outside is left out when they are filled.
    """
    if isinstance(masks, PolygonMasks):
        return PolygonMasks([[(part.reshape(-1, 2) @ matrix[:2, :2].T + matrix[:2, 2]).ravel() for part in mask]
                             for mask in masks], *size)
    warped = np.zeros((len(masks), *size), np.uint8)
    for out, mask in zip(warped, masks):
        cv2.warpAffine(mask, matrix[:2].astype(np.float64), size[::-1], dst=out)
    return BitmapMasks(warped, *size)


def _join(masks: list[Masks]) -> Masks:
    if any(isinstance(some, BitmapMasks) for some in masks):
        masks = [some if isinstance(some, BitmapMasks) else some.to_bitmap() for some in masks]
    return masks[0].cat(masks)
