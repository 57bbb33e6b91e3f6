"""Labelled boxes on a picture."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mmmamba.visualization.text import literal


class LabelledBox(NamedTuple):
    """A box (left, top, width, height) in pixels; the category gives its colour, the text its label."""
    box: tuple[float, float, float, float]
    category: int
    text: str


def true_boxes(truth: dict) -> dict[int, list[LabelledBox]]:
    """Collects the annotations of a COCO file by image.

    Args:
        truth: Its content.

    Returns:
        Image id → boxes; an image without annotations has an empty list.
    """
    names = _category_names(truth)
    return _by_image((item, names[item['category_id']]) for item in truth['annotations'])


def predicted_boxes(detections: Iterable[dict], truth: dict, score_thr: float) -> dict[int, list[LabelledBox]]:
    """Collects detections by image, labelled with class and score.

    Args:
        detections: CocoMetric's ``*.bbox.json``: entries of ``image_id``, ``category_id``, ``bbox`` and ``score``.
        truth: The content of the COCO file that names the categories.
        score_thr: Detections below it are left out.

    Returns:
        Image id → boxes; an image without detections has an empty list.
    """
    names = _category_names(truth)
    return _by_image((item, f"{names[item['category_id']]} {item['score']:.2f}") for item in detections
                     if item['score'] >= score_thr)


def _category_names(truth: dict) -> Mapping[int, str]:
    return {category['id']: category['name'] for category in truth['categories']}


def _by_image(items: Iterable[tuple[dict, str]]) -> dict[int, list[LabelledBox]]:
    boxes: dict[int, list[LabelledBox]] = defaultdict(list)
    for item, text in items:
        boxes[item['image_id']].append(LabelledBox(item['bbox'], item['category_id'], text))
    return boxes


def draw_boxes(axis: Axes, boxes: Iterable[LabelledBox], font_size: float = 8) -> None:
    """Draws boxes with their labels.

    Args:
        axis: That of the picture, which it shows already.
        boxes: What to draw.
        font_size: Of the labels, in points.
    """
    colours = matplotlib.color_sequences['tab10']
    inside = 0.06 * abs(axis.get_ylim()[0] - axis.get_ylim()[1])  # a label above such a box would leave the picture
    for (left, top, width, height), category, text in boxes:
        colour = colours[category % len(colours)]
        axis.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=font_size / 4))
        axis.text(max(left, 0), max(top, 0), literal(text), fontsize=font_size, color='white', clip_on=True,
                  verticalalignment='top' if top < inside else 'bottom',
                  bbox={'facecolor': colour, 'edgecolor': 'none', 'pad': font_size / 8})
