from __future__ import annotations

import csv
import dataclasses
import json
import re
import statistics

import pytest

from mmmamba.analysis.compare.plots import draw_ap_over_time
from mmmamba.analysis.compare.report import ap_table, error_table, runs_csv
from mmmamba.analysis.compare.results import RunResult, summarise


@pytest.fixture
def truth(shared_coco_folder):
    return json.loads((shared_coco_folder / 'annotations' / 'train.json').read_text())


@pytest.fixture
def two_configs(shared_coco_folder, make_run):
    return [make_run(shared_coco_folder / 'annotations' / 'train.json', name, seed, skill)
            for name, skill in (('good_1x_tiny', 0.9), ('bad_1x_tiny', 0.5)) for seed in (0, 1, 2)]


def rows_of(table):
    return [dict(zip(table.header, row)) for row in table.rows]


def test_csv_has_every_run_with_all_digits(truth, two_configs):
    runs = [*two_configs, RunResult('broken', 0, failure='it "broke",\nagain')]
    summaries = summarise(runs, truth)
    rows = list(csv.DictReader(runs_csv(summaries).splitlines(keepends=True)))
    assert [(row['config'], int(row['seed'])) for row in rows] == [(run.name, run.seed) for run in runs]
    for row, run in zip(rows, two_configs):
        assert float(row['ap']) == run.metrics['coco/bbox_mAP'] and float(row['ap_large']) == -1
        assert int(row['parameters']) == run.parameters and row['failure'] == ''
        assert (row['epochs'], row['cpu_minutes']) == ('10', '30.00')
    assert rows[-1].pop('failure') == 'it "broke",\nagain' and not any(list(rows[-1].values())[2:])

    errors = rows_of(error_table(summaries))
    assert [row['config'] for row in errors] == ['good_1x_tiny', 'bad_1x_tiny']
    for row, group in zip(errors, (rows[:3], rows[3:6])):
        for kind in ('classification', 'localisation', 'both', 'duplicate', 'background', 'missed'):
            count = statistics.mean(int(item[kind]) for item in group)
            cost = 100 * statistics.mean(float(item[f'{kind}_ap50_cost']) for item in group)
            assert re.fullmatch(r'[\d.]+ \([+-][\d.]+\)', row[kind])
            shown = [float(value) for value in re.findall(r'[+-]?[\d.]+', row[kind])]
            assert shown == [pytest.approx(count, abs=0.501), pytest.approx(cost, abs=0.0501)]
    assert sum(int(row['background']) for row in rows[:6]) > 0


def test_failed_runs_are_rows_that_say_so(truth, two_configs):
    failed = [dataclasses.replace(run, failure='failed: NaN in epoch 3', metrics={}) for run in two_configs[1:3]]
    runs = [two_configs[0], *failed,
            RunResult('broken_1x_tiny', 0, failure='failed: no module named x'), *two_configs[3:]]
    rows = rows_of(ap_table(summarise(runs, truth), cpu_time=False))
    assert [(row['config'], row['runs']) for row in rows] == [
        ('good_1x_tiny', '1 of 3 finished'), ('good_1x_tiny', 'seeds 1, 2 failed: NaN in epoch 3'),
        ('broken_1x_tiny', 'seed 0 failed: no module named x'), ('bad_1x_tiny', '3 of 3 finished')]
    assert rows[0]['AP'] == f"{100 * two_configs[0].metrics['coco/bbox_mAP']:.1f} (n = 1)"
    assert {rows[2][key] for key in ('parameters', 'AP', 'AP50', 'minutes')} == {'–'}


@pytest.mark.parametrize('cpu_time, column, minutes, label', [
    (False, 'minutes', '15.2 ± 0.2', 'minutes of training'),
    (True, 'CPU minutes', '30.0 ± 0.0', 'minutes of CPU time'),
])
def test_time_is_wall_clock_or_the_cpus(truth, two_configs, cpu_time, column, minutes, label):
    summaries = summarise(two_configs[:3], truth)
    row, = rows_of(ap_table(summaries, cpu_time))
    assert row[column] == minutes
    axis, = draw_ap_over_time(summaries, cpu_time).axes
    assert axis.get_xlabel() == label
    line, = axis.lines
    x, y = line.get_data()
    assert x[-1] == (30 if cpu_time else 15.25)
    assert y[-1] == pytest.approx(100 * statistics.mean(run.metrics['coco/bbox_mAP'] for run in two_configs[:3]))
