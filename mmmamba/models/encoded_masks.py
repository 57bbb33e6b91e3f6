"""Predicted masks as run lengths: what mmdet takes instead of bitmaps, in a thousandth of the memory."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import torch
from mmdet.structures.mask import BitmapMasks, encode_mask_results
from torch import Tensor

_PIXELS_AT_ONCE = 2**26


class EncodedMasks(BitmapMasks):
    """Masks of an image in COCO's run-length encoding, of which each is decoded when it is asked for.

    300 bitmaps of an image of 3840 x 2160 take 2.5 GB. mmdet's ``CocoMetric`` takes ``masks[i]``, which is COCO's
    dictionary, ``DetInferencer`` iterates over bitmaps, and the visualiser calls :meth:`to_ndarray` of those that it
    draws.

    Args:
        runs: COCO's dictionaries, of ``size`` and ``counts``.
        height, width: Of the image, in pixels.
    """

    def __init__(self, runs: list[dict], height: int, width: int) -> None:
        self.runs = runs
        self.height = height
        self.width = width

    @classmethod
    def made(cls, make: Callable[[slice], Tensor], number: int, size: Sequence[int]) -> EncodedMasks:
        """Encodes ``number`` masks of an image of that height and width, a few at a time.

        Args:
            make: Returns bitmaps, bool (N, H, W), of a slice of the numbers.
        """
        height, width = size
        at_once = max(1, _PIXELS_AT_ONCE // (height * width))
        runs: list[dict] = []
        for start in range(0, number, at_once):
            runs += encode_mask_results(make(slice(start, start + at_once)).cpu().numpy())
        return cls(runs, height, width)

    @property
    def masks(self) -> np.ndarray:
        """Returns all bitmaps, as of any ``BitmapMasks``, uint8 (N, H, W)."""
        return np.stack([*self]) if self.runs else np.zeros((0, self.height, self.width), np.uint8)

    def cpu(self) -> Tensor:
        """Returns all bitmaps as the tensor that mmdet's other detectors have instead, bool (N, H, W)."""
        return torch.from_numpy(self.masks).bool()

    def detach(self) -> EncodedMasks:
        """Returns itself: ``LVISMetric`` calls this, then :meth:`cpu`."""
        return self

    def numpy(self) -> np.ndarray:
        """Returns all bitmaps, for ``DumpDetResults``."""
        return self.masks

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(coco_mask.decode, self.runs)

    def __getitem__(self, index: int | slice) -> Any:
        """Returns COCO's dictionary of one, or the masks of a slice."""
        if isinstance(index, slice):
            return EncodedMasks(self.runs[index], self.height, self.width)
        return self.runs[index]

    def flip(self, flip_direction: str = 'horizontal') -> EncodedMasks:
        """Flips each; see mmdet's ``BitmapMasks``."""
        runs = [encode_mask_results(BitmapMasks([mask], self.height, self.width).flip(flip_direction).masks)[0]
                for mask in self]
        return EncodedMasks(runs, self.height, self.width)

    @classmethod
    def cat(cls, masks: Sequence[EncodedMasks]) -> EncodedMasks:
        """Joins masks of one image."""
        return cls([run for some in masks for run in some.runs], masks[0].height, masks[0].width)
