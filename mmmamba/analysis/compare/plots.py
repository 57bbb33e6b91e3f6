"""The plots of a comparison: spread over seeds, curves over training, precision-recall, errors, and pictures."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmamba.analysis.compare.evaluation import IOU_THRESHOLDS, RECALLS, read_detections
from mmmamba.analysis.compare.results import AP, ConfigSummary
from mmmamba.analysis.compare.tide import ERROR_TYPES
from mmmamba.analysis.drawing import draw_boxes, literal, predicted_boxes, true_boxes
from mmmamba.datasets.transforms.load_checked_image import load_annotated_image

# Okabe and Ito's colours, which the colour-blind tell apart, without their yellow, which is faint on white.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#000000', '#e69f00', '#56b4e9')
_LINES = ('-', '--', ':', '-.')


def draw_ap(summaries: Sequence[ConfigSummary]) -> Figure:
    """Draws AP and AP50 of each config: a dot a seed, a stroke at the mean."""
    figure = Figure(figsize=(11, 1.4 + 0.36 * len(summaries)), layout='constrained')
    axes = figure.subplots(1, 2, sharey=True)
    for axis, metric, title in zip(axes, (AP, f'{AP}_50'), ('AP', 'AP50')):
        for row, summary in enumerate(summaries):
            _draw_spread(axis, row, [100 * value for value in summary.values(metric)])
            if not summary.finished:
                axis.annotate('no result', (0.5, row), xycoords=axis.get_yaxis_transform(), va='center', ha='center')
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
    _label_rows(axes[0], summaries)
    return figure


def draw_ap_over_epochs(summaries: Sequence[ConfigSummary]) -> Figure:
    """Draws AP on the validation set against epochs: mean over seeds, and from the least to the largest."""
    return _draw_history(summaries, 'epoch', 'epochs')


def draw_ap_over_time(summaries: Sequence[ConfigSummary], cpu_time: bool) -> Figure:
    """Draws AP on the validation set against the time of training, averaged over seeds as AP is.

    Args:
        summaries: The configs.
        cpu_time: Whether to take the CPU time of the process instead of wall clock.
    """
    if cpu_time:
        return _draw_history(summaries, 'cpu_minutes', 'minutes of CPU time')
    return _draw_history(summaries, 'minutes', 'minutes of training')


def draw_precision_recall(summaries: Sequence[ConfigSummary]) -> Figure:
    """Draws precision against recall at IoU 0.5 and 0.75, mean over classes and seeds."""
    figure = Figure(figsize=(13, 4.8), layout='constrained')
    axes = figure.subplots(1, 2, sharey=True)
    for level, (axis, threshold) in enumerate(zip(axes, IOU_THRESHOLDS)):
        for style, summary in zip(_styles(summaries), summaries):
            if summary.analysed:
                mean = np.mean([run.precision[level] for run in summary.analysed], axis=0)
                axis.plot(RECALLS, mean, label=literal(summary.label), **style)
        axis.set(title=f'IoU {threshold}', xlabel='recall', xlim=(0, 1), ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel('precision')
    _add_legend(figure, axes[0])
    return figure


def draw_errors(summaries: Sequence[ConfigSummary]) -> Figure:
    """Draws what each kind of error costs, in points of AP50: a bar at the mean, a dot a seed."""
    figure = Figure(figsize=(14, 1.4 + 0.36 * len(summaries)), layout='constrained')
    axes = figure.subplots(1, len(ERROR_TYPES), sharex=True, sharey=True)
    for axis, kind in zip(axes, ERROR_TYPES):
        rows = [[100 * run.errors.costs[kind] for run in summary.analysed] for summary in summaries]
        axis.barh(range(len(rows)), [np.mean(row) if row else 0 for row in rows], color=_COLOURS[-1], zorder=2)
        for row, values in enumerate(rows):
            axis.plot(values, [row] * len(values), 'o', color='black', markersize=2.5, zorder=3)
        axis.set_title(kind, fontsize=10)
        axis.grid(axis='x', alpha=0.3)
    figure.supxlabel('points of AP50 that repairing this kind alone would gain', fontsize=10)
    _label_rows(axes[0], summaries)
    return figure


def _draw_spread(axis: Axes, row: int, values: Sequence[float]) -> None:
    if values:
        axis.plot([min(values), max(values)], [row, row], color=_COLOURS[0], linewidth=6, alpha=0.25)
        axis.plot(values, [row] * len(values), 'o', color=_COLOURS[0], markersize=4)
        axis.plot(np.mean(values), row, '|', color='black', markersize=14, markeredgewidth=2)


def _label_rows(axis: Axes, summaries: Sequence[ConfigSummary]) -> None:
    axis.set_yticks(range(len(summaries)), [literal(summary.label) for summary in summaries], fontsize=9)
    axis.set_ylim(len(summaries) - 0.5, -0.5)  # the first on top


def _draw_history(summaries: Sequence[ConfigSummary], along: str, xlabel: str) -> Figure:
    figure = Figure(figsize=(11, 5.5), layout='constrained')
    axis = figure.subplots()
    for style, summary in zip(_styles(summaries), summaries):
        aps = 100 * summary.history(lambda validation: validation.ap)
        if aps.size:
            x = summary.history(lambda validation: getattr(validation, along)).mean(axis=0)
            marker = 'o' if len(x) == 1 else None
            axis.plot(x, aps.mean(axis=0), label=literal(summary.label), marker=marker, **style)
            axis.fill_between(x, aps.min(axis=0), aps.max(axis=0), color=style['color'], alpha=0.1, linewidth=0)
    axis.set(xlabel=xlabel, ylabel='AP on the validation set')
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    _add_legend(figure, axis)
    return figure


def _styles(summaries: Sequence[ConfigSummary]) -> list[dict]:
    """Returns line styles that a config keeps in every plot, whichever others have nothing to show."""
    return [{'color': _COLOURS[i % len(_COLOURS)], 'linestyle': _LINES[i // len(_COLOURS) % len(_LINES)],
             'linewidth': 1.6} for i in range(len(summaries))]


def _add_legend(figure: Figure, axis: Axes) -> None:
    figure.legend(*axis.get_legend_handles_labels(), loc='outside right upper', fontsize=9, handlelength=3)


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
