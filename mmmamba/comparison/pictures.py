"""The same images with the truth and with each config's detections, side by side."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mmmamba.comparison.box_evaluation import read_detections
from mmmamba.comparison.summary import ConfigSummary
from mmmamba.datasets.image_frame import load_annotated_image
from mmmamba.visualization.boxes import draw_boxes, predicted_boxes, true_boxes
from mmmamba.visualization.text import literal

IMAGES = 4
_MOST_COLUMNS = 6
_WIDTH = 3.0  # of one picture, in inches
_MOST_HEIGHT = 2.0  # of one picture, in widths


def draw_pictures(summaries: Sequence[ConfigSummary], truth: dict, folder: Path, score_thr: float) -> Figure:
    """Draws images that are spread evenly over the annotated ones of the test set.

    Each image is shown with the true boxes and, per config, with the detections of its first finished seed.

    Args:
        summaries: The configs; those without detections are left out.
        truth: What ``read_truth`` returned, which has checked that file names stay inside the folder.
        folder: Of the images.
        score_thr: Detections below it are left out.

    Returns:
        A block of rows for each image, the truth first.

    Raises:
        InputError: If an image cannot be read, or has another size than its annotations.
    """
    columns = [('truth', true_boxes(truth))]
    for summary in summaries:
        for run in summary.analysed[:1]:
            detections = read_detections(run.result.detections, truth)
            columns.append((summary.label, predicted_boxes(detections, truth, score_thr)))

    shown = spread(truth)
    wide = min(len(columns), _MOST_COLUMNS)
    rows = -(-len(columns) // wide)
    heights = [_WIDTH * min(image['height'] / image['width'], _MOST_HEIGHT) + 0.3 for image in shown]
    figure = Figure(figsize=(_WIDTH * wide, rows * sum(heights) + 0.3 * len(shown)), layout='constrained')
    blocks = figure.subfigures(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for block, image in zip(blocks, shown):
        picture = load_annotated_image(image, folder)
        block.suptitle(literal(image['file_name']), fontsize=10, x=0.01, horizontalalignment='left')
        axes = block.subplots(rows, wide, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, (title, boxes) in zip(axes, columns):
            axis.imshow(picture)
            axis.set_title(literal(title), fontsize=9)
            draw_boxes(axis, boxes[image['id']], font_size=6)
    return figure


def spread(truth: dict) -> list[dict]:
    """Chooses images with annotations, evenly over the file, the first among them."""
    annotated = {item['image_id'] for item in truth['annotations']}
    images = [image for image in truth['images'] if image['id'] in annotated]
    count = min(IMAGES, len(images))
    return [images[index * len(images) // count] for index in range(count)]
