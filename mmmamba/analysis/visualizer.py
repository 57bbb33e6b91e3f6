"""Detections drawn so that they can be read on small and on large pictures, and fast enough for videos.

mmdet's own visualiser draws lines and letters of one size on every picture, by matplotlib, in a tenth of a second.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from mmdet.visualization import DetLocalVisualizer
from mmdet.visualization.palette import get_palette
from mmengine.structures import InstanceData
from PIL import Image, ImageDraw, ImageFont

_LINE, _LETTERS = 0.003, 0.022  # of the mean of width and height
_LEAST_LETTERS = 11  # pixels
_MASK = 0.45  # of its colour
_DARK = 140  # luminance below which letters are white

Colour = tuple[int, int, int]


class PictureVisualizer(DetLocalVisualizer):
    """mmdet's visualiser (same arguments), whose boxes, masks and labels :func:`draw_instances` draws."""

    def _draw_instances(self, image: np.ndarray, instances: InstanceData, classes: Sequence[str] | None,
                        palette: str | list[Colour] | None) -> np.ndarray:
        labels = instances.labels.tolist()
        names = classes or [f'class {label}' for label in range(max(labels, default=0) + 1)]
        return draw_instances(image, instances, names, palette)


def draw_instances(image: np.ndarray, instances: InstanceData, classes: Sequence[str],
                   palette: str | list[Colour] | None) -> np.ndarray:
    """Draws boxes with class, score and number of the track, and masks, the best over the others.

    Args:
        image: RGB (H, W, 3) uint8.
        instances: With ``bboxes``, ``labels`` and, if any, ``scores``, ``masks`` and ``track_ids`` (-1: none).
        classes: Their names.
        palette: A colour for each class, RGB, or what mmdet calls one; one of too few colours is not used.

    Returns:
        Another RGB picture of the same size.
    """
    image = np.array(image)
    if not len(instances):
        return image
    side = sum(image.shape[:2]) / 2
    line = max(1, round(_LINE * side))
    if not palette or not isinstance(palette, str) and len(palette) < len(classes):  # another data set's
        palette = 'random'
    colours = [tuple(map(int, colour)) for colour in get_palette(palette, len(classes))]
    scores = instances.get('scores', np.ones(len(instances)))
    order = np.argsort(np.asarray(scores), kind='stable')
    drawn_as = [colours[label] for label in instances.labels.tolist()]
    if 'masks' in instances:
        masks = instances.masks
        for index, mask in enumerate(masks if hasattr(masks, 'runs') else np.asarray(masks)):
            _draw_mask(image, np.asarray(mask), drawn_as[index], line)
    boxes = [[round(value) for value in box] for box in instances.bboxes.tolist()]
    for index in order:
        x1, y1, x2, y2 = boxes[index]
        cv2.rectangle(image, (x1, y1), (x2, y2), drawn_as[index], line)
    font = _font(max(_LEAST_LETTERS, round(_LETTERS * side)))
    tracks = instances.get('track_ids')
    for index in order:
        text = classes[int(instances.labels[index])]
        if 'scores' in instances:
            text = f'{text} {float(scores[index]):.2f}'
        if tracks is not None and tracks[index] >= 0:
            text = f'#{int(tracks[index])} {text}'
        _draw_label(image, text, boxes[index], drawn_as[index], font)
    return image


def _draw_mask(image: np.ndarray, mask: np.ndarray, colour: Colour, line: int) -> None:
    mask = np.ascontiguousarray(mask, np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    part = image[top:top + height, left:left + width]
    inside = mask[top:top + height, left:left + width].astype(bool)
    part[inside] = (part[inside] * (1 - _MASK) + np.array(colour) * _MASK).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(image, outlines, -1, colour, max(1, line // 2), cv2.LINE_AA)


def _draw_label(image: np.ndarray, text: str, box: Sequence[int], colour: Colour,
                font: ImageFont.FreeTypeFont) -> None:
    """Writes over the box, or, at the upper edge of the picture, into it; never beyond the picture's right edge."""
    ascent, descent = font.getmetrics()
    margin = max(2, ascent // 5)
    label = Image.new('RGB', (round(font.getlength(text)) + 2 * margin, ascent + descent), colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ImageDraw.Draw(label).text((margin, 0), text, fill='white' if luminance < _DARK else 'black', font=font)
    left = max(0, min(box[0], image.shape[1] - label.width))
    top = box[1] - label.height if box[1] >= label.height else max(0, box[1])
    place = image[top:top + label.height, left:left + label.width]
    place[:] = np.asarray(label)[:place.shape[0], :place.shape[1]]


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Returns matplotlib's own font, which is on every machine and has Latin, Greek and Cyrillic letters."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')), size)
