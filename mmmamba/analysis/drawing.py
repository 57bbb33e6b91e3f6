"""Labelled boxes on pictures, and the pictures of a run: predictions next to the truth, loss and AP over the epochs.

It needs matplotlib, which comes with ``mmmamba[demo]``.
"""
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmmamba.datasets.coco_checks import read_annotations
from mmmamba.datasets.transforms.load_checked_image import load_annotated_image

PAIRS_PER_ROW = 2


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


def literal(text: str) -> str:
    """Keeps matplotlib from reading dollar signs as the borders of a formula.

    Args:
        text: Any text.

    Returns:
        What matplotlib shows as that text, on one line.
    """
    return ' '.join(text.split()).replace('$', r'\$')


def draw_predictions(annotations: Path, image_folder: Path, predictions: Path, out: Path, *, images: int = 8,
                     score_thr: float = 0.3) -> None:
    """Draws the first annotated images, each twice: with its true boxes and with its predicted ones.

    Args:
        annotations: COCO json of the images.
        image_folder: Where its file names are.
        predictions: CocoMetric's ``*.bbox.json``: a list of ``image_id``, ``category_id``, ``bbox`` and ``score``.
        out: The PNG to write.
        images: How many images to draw.
        score_thr: Predictions below it are left out.
    """
    truth = read_annotations(str(annotations), for_evaluation=True)
    true = true_boxes(truth)
    predicted = predicted_boxes(json.loads(predictions.read_text(encoding='utf-8')), truth, score_thr)

    annotated = [image for image in truth['images'] if true[image['id']]]
    shown = (annotated or truth['images'])[:images]
    columns = 2 * min(PAIRS_PER_ROW, len(shown))
    rows = -(-len(shown) // PAIRS_PER_ROW)
    figure = Figure(figsize=(3.2 * columns, 3.4 * rows), layout='constrained')
    axes = iter(figure.subplots(rows, columns, squeeze=False).flat)
    for image in shown:
        picture = load_annotated_image(image, image_folder)
        for title, boxes in (('truth', true), ('predicted', predicted)):
            axis = next(axes)
            axis.imshow(picture)
            axis.set_title(literal(f"{image['file_name']}: {title}"), fontsize=9)
            draw_boxes(axis, boxes[image['id']])
            axis.set_axis_off()
    for axis in axes:
        axis.set_axis_off()
    figure.savefig(out, dpi=100)


def draw_curves(scalars: Path, out: Path) -> None:
    """Plots loss, AP and AP50 over the epochs.

    Args:
        scalars: mmengine's ``vis_data/scalars.json``, one record a line.
        out: The PNG to write.
    """
    records = [json.loads(line) for line in scalars.read_text(encoding='utf-8').splitlines()]
    training = [record for record in records if 'loss' in record]
    evaluation = [record for record in records if 'coco/bbox_mAP' in record]
    iterations_per_epoch = max(record['iter'] for record in training) / max(record['epoch'] for record in training)

    figure = Figure(figsize=(10, 4), layout='constrained')
    loss_axis, ap_axis = figure.subplots(1, 2)
    loss_axis.plot([record['iter'] / iterations_per_epoch for record in training],
                   [record['loss'] for record in training], label='loss')
    loss_axis.set_ylim(bottom=0)
    for key, label in (('coco/bbox_mAP_50', 'AP50'), ('coco/bbox_mAP', 'AP')):
        ap_axis.plot([record['step'] for record in evaluation], [record[key] for record in evaluation],
                     marker='o', label=label)
    ap_axis.set_ylim(0, 1)
    for axis, title in ((loss_axis, 'training'), (ap_axis, 'validation')):
        axis.set(title=title, xlabel='epoch')
        axis.grid(alpha=0.3)
        axis.legend(loc='upper right' if axis is loss_axis else 'lower right')
    figure.savefig(out, dpi=100)
