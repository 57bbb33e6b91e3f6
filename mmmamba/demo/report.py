"""Pictures of a run: predictions beside the truth, and loss and AP over the epochs."""
from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure

from mmmamba.datasets.coco_checks import read_annotations
from mmmamba.datasets.image_frame import load_annotated_image
from mmmamba.visualization.boxes import draw_boxes, predicted_boxes, true_boxes
from mmmamba.visualization.text import literal

PAIRS_PER_ROW = 2


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
