from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mmmamba.analysis.compare import plots
from mmmamba.analysis.compare.results import RunResult, summarise
from mmmamba.analysis.compare.tide import ERROR_TYPES


@pytest.fixture
def summaries(shared_coco_folder, make_run):
    """A config of two seeds, one that failed, and one of one seed."""
    annotations = shared_coco_folder / 'annotations' / 'train.json'
    runs = [make_run(annotations, 'a', 0, 0.9), make_run(annotations, 'a', 1, 0.8),
            RunResult('broken', 0, failure='it broke'), make_run(annotations, 'c', 0, 0.5, epochs=1)]
    return summarise(runs, json.loads(annotations.read_text()))


def by_label(axis: Axes) -> dict[str, Line2D]:
    return {line.get_label(): line for line in axis.lines}


def test_ap(summaries):
    figure = plots.draw_ap(summaries)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ['a', 'broken', 'c']
    for axis, metric in zip(figure.axes, ('coco/bbox_mAP', 'coco/bbox_mAP_50')):
        assert [(text.get_text(), text.xy[1]) for text in axis.texts] == [('no result', 1)]
        a, _, c = ([100 * run.metrics[metric] for run in summary.finished] for summary in summaries)
        drawn = [np.ravel(line.get_xdata()).tolist() for line in axis.lines]
        for mark in ([min(a), max(a)], a, [np.mean(a)], [c[0], c[0]], c):  # from least to largest, seeds, mean
            assert mark in drawn


def test_ap_over_epochs(summaries):
    axis, = plots.draw_ap_over_epochs(summaries).axes
    lines = by_label(axis)
    assert set(lines) == {'a', 'c'}
    first, second = summaries[0].finished
    assert lines['a'].get_xdata().tolist() == list(range(1, 11))
    means = [50 * (one.ap + other.ap) for one, other in zip(first.history, second.history)]
    assert np.allclose(lines['a'].get_ydata(), means)
    band = axis.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(100 * max(first.history[-1].ap, second.history[-1].ap))
    assert lines['c'].get_marker() == 'o'  # a line of one point would not be seen


def test_precision_recall(summaries):
    for level, axis in enumerate(plots.draw_precision_recall(summaries).axes):
        lines = by_label(axis)
        assert set(lines) == {'a', 'c'}
        expected = np.mean([run.precision[level] for run in summaries[0].runs], axis=0)
        assert np.allclose(lines['a'].get_ydata(), expected) and expected.max() > 0


def test_errors(summaries):
    figure = plots.draw_errors(summaries)
    assert [axis.get_title() for axis in figure.axes] == list(ERROR_TYPES)
    for axis, kind in zip(figure.axes, ERROR_TYPES):
        a, c = ([run.errors.costs[kind] for run in summaries[index].runs] for index in (0, 2))
        assert [bar.get_width() for bar in axis.patches] == pytest.approx([100 * np.mean(a), 0, 100 * c[0]])


def test_eleven_configs_look_different_and_alike_in_every_plot(summaries):
    many = [dataclasses.replace(summaries[0], label=f'config{i}') for i in range(11)]
    with_failed = [summaries[1], *many[1:]]
    over_epochs, precision_recall, without_first = (
        {label: (line.get_color(), line.get_linestyle()) for label, line in by_label(figure.axes[0]).items()}
        for figure in (plots.draw_ap_over_epochs(many), plots.draw_precision_recall(many),
                       plots.draw_ap_over_epochs(with_failed)))
    assert len(over_epochs) == len(set(over_epochs.values())) == 11 and over_epochs == precision_recall
    assert without_first == {label: look for label, look in over_epochs.items() if label != 'config0'}
