"""Transforms of the YOLO recipes: an affine map about the centre, colours in HSV, and padding that is no picture."""
from __future__ import annotations

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.datasets.transforms import Pad, RandomAffine
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import autocast_box_type

from mmmamba.datasets.transforms.instance_masks import warp_masks
from mmmamba.errors import InputError


@TRANSFORMS.register_module()
class CenteredRandomAffine(RandomAffine):
    """mmdet's ``RandomAffine`` about the centre, and without the slivers that clipping leaves of boxes.

    mmdet (after YOLOX) scales about the upper left corner: of a mosaic, an unscaled output shows mostly one of the
    four images. Here the centre of the input maps to the centre of the output, up to the random shift. ``gt_masks``,
    which mmdet refuses, are moved as well.

    Args:
        max_rotate_degree, max_translate_ratio, scaling_ratio_range, max_shear_degree, border, border_val: See mmdet's
            ``RandomAffine``; a border of ``(-w // 2, -h // 2)`` cuts a mosaic of 2w x 2h down.
        min_box_side: Boxes whose clipped width or height is not above this many pixels are dropped.
        min_area_ratio: Boxes of which clipping leaves no more than this share of the area are dropped.
    """

    def __init__(self, max_rotate_degree: float = 0.0, max_translate_ratio: float = 0.1,
                 scaling_ratio_range: tuple[float, float] = (0.5, 1.5), max_shear_degree: float = 0.0,
                 border: tuple[int, int] = (0, 0), border_val: tuple[int, int, int] = (114, 114, 114),
                 min_box_side: float = 2.0, min_area_ratio: float = 0.1) -> None:
        # The parent leaves clipping to us, so that areas before and after it can be compared.
        super().__init__(max_rotate_degree, max_translate_ratio, scaling_ratio_range, max_shear_degree, border,
                         border_val, bbox_clip_border=False)
        self.min_box_side = min_box_side
        self.min_area_ratio = min_area_ratio

    @autocast_box_type()
    def transform(self, results: dict) -> dict:
        """Warps the image, its boxes and its masks."""
        masks, labels = results.pop('gt_masks', None), results['gt_bboxes_labels']
        results['gt_bboxes_labels'] = np.arange(len(labels))  # so that it is seen which the parent drops
        results = super().transform(results)
        boxes = results['gt_bboxes']
        areas = boxes.areas
        boxes.clip_(results['img_shape'])
        keep = ((boxes.widths > self.min_box_side) & (boxes.heights > self.min_box_side)
                & (boxes.areas > self.min_area_ratio * areas)).numpy()
        for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags'):
            results[key] = results[key][keep]
        kept = results['gt_bboxes_labels']
        results['gt_bboxes_labels'] = labels[kept]
        if masks is not None:
            results['gt_masks'] = warp_masks(masks[kept], self._matrix, results['img_shape'])
        return results

    @cache_randomness
    def _get_random_homography_matrix(self, height: int, width: int) -> np.ndarray:
        about_corner = super()._get_random_homography_matrix(height, width)
        input_height, input_width = height - 2 * self.border[1], width - 2 * self.border[0]
        to_corner = self._get_translation_matrix(-input_width / 2, -input_height / 2)
        to_center = self._get_translation_matrix(width / 2, height / 2)
        self._matrix = to_center @ about_corner @ to_corner
        return self._matrix

    def __repr__(self) -> str:
        return (f'{super().__repr__()[:-1]}, min_box_side={self.min_box_side}, '
                f'min_area_ratio={self.min_area_ratio})')


@TRANSFORMS.register_module()
class RandomHSV(BaseTransform):
    """Multiplies hue (modulo its circle), saturation and value by gains drawn from 1 ± the amount, uniformly.

    mmdet's ``YOLOXHSVRandomAug`` adds offsets instead, which brightens black and saturates grey.

    Changes ``img`` (H, W, 3), which must be of uint8, in BGR.

    Args:
        hue, saturation, value: The amounts, between 0 and 1.
    """

    def __init__(self, hue: float = 0.015, saturation: float = 0.7, value: float = 0.4) -> None:
        self.amounts = np.array([hue, saturation, value])
        if not ((self.amounts >= 0) & (self.amounts <= 1)).all():
            raise InputError(f'RandomHSV: amounts must lie between 0 and 1, not {hue}, {saturation}, {value}')

    def transform(self, results: dict) -> dict:
        """Jitters ``results['img']``."""
        image = results['img']
        if image.dtype != np.uint8:
            raise InputError(f'RandomHSV needs an image of uint8, not {image.dtype}; place it before any conversion')
        hue, saturation, value = self._gains()
        levels = np.arange(256)
        table = np.stack([levels * hue % 180, levels * saturation, levels * value], axis=-1).clip(max=255)
        hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), table.astype(np.uint8)[:, None])
        results['img'] = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        return results

    @cache_randomness
    def _gains(self) -> np.ndarray:
        return 1 + np.random.uniform(-1, 1, 3) * self.amounts

    def __repr__(self) -> str:
        hue, saturation, value = self.amounts.tolist()
        return f'{type(self).__name__}(hue={hue}, saturation={saturation}, value={value})'


@TRANSFORMS.register_module()
class LetterboxPad(Pad):
    """mmdet's ``Pad`` (same arguments) for testing: ``img_shape`` remains the picture's own.

    ``pad_shape`` is the padded one, as where mmdet's ``DetDataPreprocessor`` pads a batch. Heads clip boxes to
    ``img_shape``; after mmdet's ``Pad``, that is the padded size, and boxes end outside the picture. Augmented
    training images are to be padded by mmdet's ``Pad``: what an affine transform moves about has the padded size.
    """

    def transform(self, results: dict) -> dict:
        """Pads ``img`` (H, W, 3) and whatever else there is, below and on the right."""
        shape = results['img_shape']
        results = super().transform(results)
        results['img_shape'] = shape
        return results
