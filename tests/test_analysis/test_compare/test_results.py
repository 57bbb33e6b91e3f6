from __future__ import annotations

import numpy as np
import pytest
from handmade_boxes import thing, truth_of

from mmmamba.analysis.compare.evaluation import read_truth
from mmmamba.analysis.compare.results import (
    AP,
    Comparison,
    RunResult,
    Validation,
    mean_and_spread,
    short_labels,
    summarise,
)

TRUTH = truth_of([thing(1, (0, 0, 10, 10))])


def run(name, seed, ap=0.5, epochs=(1, 2), **changes):
    history = tuple(Validation(epoch, 2.0 * epoch + seed, 3.0 * epoch, ap * epoch / 10) for epoch in epochs)
    return RunResult(name, seed, **{'metrics': {AP: ap}, 'history': history, **changes})


@pytest.mark.parametrize('names, labels', [
    (['a_t_1x_coco', 'b_t_1x_coco'], ['a', 'b']),
    (['y_t_1x', 'y_t_relu_1x', 'y_t_silu_1x'], ['t', 't_relu', 't_silu']),
    (['y_n_1x', 'y_s_1x'], ['n', 's']),
    (['y_n_1x', 'z_s_2x'], ['y_n_1x', 'z_s_2x']),
    (['y_n_1x'], ['y_n_1x']),
    (['1x', 'y_1x'], ['1x', 'y_1x']),
    ([], []),
])
def test_short_labels(names, labels):
    assert short_labels(names) == labels


@pytest.mark.parametrize('values, text', [
    ([], '–'), ([0.4445], '44.5'), ([0.40, 0.42], '41.0 ± 1.4'), ([0.40, 0.41, 0.45], '42.0 ± 2.6')])
def test_mean_and_sample_deviation(values, text):
    assert mean_and_spread(values, 100) == text


def test_order_is_that_of_the_configs_first_runs():
    summaries = summarise([run('b', 0), run('a', 0), run('b', 1)], TRUTH)
    assert [(item.name, [one.result.seed for one in item.runs]) for item in summaries] == [('b', [0, 1]), ('a', [0])]


def test_history_has_the_epochs_that_all_finished_seeds_share():
    summary, = summarise([run('a', 0, 0.2, (1, 2, 3)), run('a', 1, 0.4, (2, 3, 4)),
                          run('a', 2, failure='it broke', metrics={}, epochs=(1, ))], TRUTH)
    assert summary.history(lambda item: item.epoch).tolist() == [[2, 3], [2, 3]]
    assert np.allclose(summary.history(lambda item: item.ap), [[0.04, 0.06], [0.08, 0.12]])


def test_metrics_without_objects_are_left_out():
    key = 'coco/bbox_mAP_s'
    summary, = summarise([run('a', 0, metrics={AP: 0.5, key: -1}), run('a', 1, metrics={AP: 0.5, key: 0.3})], TRUTH)
    assert summary.values(key) == [0.3]


def test_a_finished_run_needs_its_ap():
    with pytest.raises(ValueError, match='a, seed 3: a run that finished needs the metric coco/bbox_mAP'):
        RunResult('a', 3)


def test_two_runs_of_one_seed_are_refused(tmp_path):
    with pytest.raises(ValueError, match='a: two runs of seed 0'):
        Comparison('', '', {}, tmp_path, tmp_path, (run('a', 0), run('b', 0), run('a', 0)))


def test_a_run_without_any_detection_counts_as_zero_everywhere(make_run, shared_coco_folder):
    annotations = shared_coco_folder / 'annotations/train.json'
    run = make_run(annotations, 'a', 0, 0.9)
    nothing = RunResult('a', 1, metrics={'coco/bbox_mAP': 0.0})
    summary, = summarise([run, nothing], read_truth(annotations))
    for metric, value in run.metrics.items():
        assert summary.values(metric) == ([value, 0.0] if value >= 0 else [])
