"""Masks from prototypes and coefficients, in YOLOv8's four ways.

A mask's probabilities are q = sigmoid(c · prototypes), on the prototypes' grid; the mask is where q > 0.5 in its box.
The ways differ in what comes first of resizing, which is bilinear, and cropping by the box:

- :func:`masks_lowres`: crop; no resizing (the reference's validation during training);
- :func:`masks_predict`: crop, then resize to the network's input (the reference's prediction);
- :func:`masks_val_json`: resize to the network's input, then crop; :func:`without_letterbox` brings these masks to the
  original image (the reference's COCO results);
- :func:`masks_retina`: resize the picture's part to the original image, then crop there: the finest, and what
  ``YOLOv8InsHead`` predicts.

Pixel (row r, column x) is in a box if x1 <= x < x2 and y1 <= r < y2. All are pure functions of tensors; the first two
can be traced and exported, the last two make a mask at a time.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_MAX_BYTES = 2**25
"""Of the probabilities of a few masks; while they are made, those of the masks before are still held."""

Region = tuple[float, float, float, float]
"""Top, left, bottom and right of the picture on the prototypes' grid."""


def mask_logits(coefficients: Tensor, prototypes: Tensor) -> Tensor:
    """Returns the logits (N, h, w) of coefficients (N, K) on prototypes (K, h, w)."""
    return (coefficients @ prototypes.flatten(1)).unflatten(1, prototypes.shape[1:])


def crop_to_boxes(maps: Tensor, boxes: Tensor) -> Tensor:
    """Returns maps (N, h, w) with zeros outside each one's box (N, 4), x1, y1, x2, y2 in pixels of the maps."""
    x1, y1, x2, y2 = boxes[:, :, None].unbind(dim=1)
    rows, columns = (torch.arange(size, device=maps.device, dtype=boxes.dtype) for size in maps.shape[1:])
    inside_rows, inside_columns = (y1 <= rows) & (rows < y2), (x1 <= columns) & (columns < x2)
    return maps.masked_fill(~(inside_rows[:, :, None] & inside_columns[:, None]), 0)


def masks_lowres(coefficients: Tensor, prototypes: Tensor, boxes: Tensor, image_size: Sequence[int]) -> Tensor:
    """Makes masks on the prototypes' grid.

    Args:
        coefficients: (N, K).
        prototypes: (K, h, w).
        boxes: (N, 4), x1, y1, x2, y2 in pixels of the network's input.
        image_size: Height and width of that input.

    Returns:
        (N, h, w), bool.
    """
    return _cropped_probabilities(coefficients, prototypes, boxes, image_size) > 0.5


def masks_predict(coefficients: Tensor, prototypes: Tensor, boxes: Tensor, image_size: Sequence[int]) -> Tensor:
    """Makes masks of the network's input, (N, H, W); arguments as of :func:`masks_lowres`."""
    cropped = _cropped_probabilities(coefficients, prototypes, boxes, image_size)
    return F.interpolate(cropped[:, None], tuple(image_size), mode='bilinear', align_corners=False)[:, 0] > 0.5


def masks_val_json(coefficients: Tensor, prototypes: Tensor, boxes: Tensor, image_size: Sequence[int]) -> Tensor:
    """Makes masks of the network's input, (N, H, W); arguments as of :func:`masks_lowres`."""
    return masks_retina(coefficients, prototypes, boxes, image_size, (0, 0, *prototypes.shape[1:]))


def masks_retina(coefficients: Tensor, prototypes: Tensor, boxes: Tensor, size: Sequence[int],
                 region: Region) -> Tensor:
    """Makes masks of an image, in its own pixels.

    Only what is inside the boxes is computed. Beyond the result, a byte for each mask and pixel, it takes at most
    64 MiB and 16 bytes for each pixel of the largest box.

    Args:
        coefficients: (N, K).
        prototypes: (K, h, w).
        boxes: (N, 4), x1, y1, x2, y2 in pixels of the image.
        size: Height and width of the image, H and W.
        region: Where the image is on the prototypes' grid; edges may lie inside a pixel.

    Returns:
        (N, H, W), bool.
    """
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool, device=prototypes.device)
    rows, columns = (_neighbours(start, stop, length, prototypes.device)
                     for start, stop, length in zip(region[:2], region[2:], size))
    edges = boxes.ceil().clamp(min=0).long().tolist()
    at_once = max(1, _MAX_BYTES // (4 * prototypes[0].numel()))
    for start in range(0, len(masks), at_once):
        chunk = slice(start, start + at_once)
        probabilities = mask_logits(coefficients[chunk], prototypes).sigmoid_()
        for mask, probability, (x1, y1, x2, y2) in zip(masks[chunk], probabilities, edges[chunk]):
            left, right, share = (x[x1:x2] for x in columns)
            wide = torch.lerp(probability.index_select(1, left), probability.index_select(1, right), share)
            above, below, share = (x[y1:y2] for x in rows)
            mask[y1:y2, x1:x2] = torch.lerp(wide.index_select(0, above), wide.index_select(0, below),
                                            share[:, None]) > 0.5
    return masks


def letterbox_region(height: int, width: int, original_size: Sequence[int]) -> tuple[int, int, int, int]:
    """Returns where the picture is in a map of a letterbox with the picture in its middle, as the reference cuts it.

    mmdet's pipelines have the picture in the upper left corner, where the region needs no rounding.

    Args:
        height, width: Of the map.
        original_size: Height and width of the picture before it was scaled.

    Returns:
        Top, left, bottom, right.
    """
    gain = min(height / original_size[0], width / original_size[1])
    top, left = (height - original_size[0] * gain) / 2, (width - original_size[1] * gain) / 2
    return int(top), int(left), int(height - top), int(width - left)


def without_letterbox(masks: Tensor, original_size: Sequence[int]) -> Tensor:
    """Cuts masks of the input (N, H, W) to the picture in its middle, and resizes them to its original size."""
    _, height, width = masks.shape
    top, left, bottom, right = letterbox_region(height, width, original_size)
    resized = [cv2.resize(mask[top:bottom, left:right].byte().cpu().numpy(), tuple(original_size[::-1]))
               for mask in masks]
    return torch.from_numpy(np.stack(resized)).bool() if resized else masks.new_zeros(0, *original_size)


def _cropped_probabilities(coefficients: Tensor, prototypes: Tensor, boxes: Tensor,
                           image_size: Sequence[int]) -> Tensor:
    (height, width), (rows, columns) = image_size, prototypes.shape[1:]
    scale = boxes.new_tensor([columns / width, rows / height]).repeat(2)
    return crop_to_boxes(mask_logits(coefficients, prototypes).sigmoid(), boxes * scale)


def _neighbours(start: float, stop: float, length: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Returns, for ``length`` pixels that a stretch is resized to, the pixel before, the one after, and its share."""
    last = math.ceil(stop) - 1
    centres = start + (torch.arange(length, dtype=torch.float64) + 0.5) * ((stop - start) / length) - 0.5
    centres = centres.clamp(math.floor(start), last)
    before = centres.floor()
    after = (before + 1).clamp(max=last)
    return before.long().to(device), after.long().to(device), (centres - before).float().to(device)
