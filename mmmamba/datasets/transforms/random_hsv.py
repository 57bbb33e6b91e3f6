"""Colour jitter by multiplication in HSV space."""
from __future__ import annotations

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS

from mmmamba.errors import InputError


@TRANSFORMS.register_module()
class RandomHSV(BaseTransform):
    """Multiplies hue (modulo its circle), saturation and value by gains drawn from 1 ± the amount, uniformly.

    mmdet's ``YOLOXHSVRandomAug`` adds offsets instead, which brightens black and saturates grey.

    Changes ``img`` (H, W, 3), which must be of uint8, in BGR.

    Args:
        hue: Amount for the hue, between 0 and 1.
        saturation: Amount for the saturation.
        value: Amount for the value.
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
