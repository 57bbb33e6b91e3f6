"""The suite runs where there is nothing but PyTorch, and keeps to its budget."""
from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import torch

from benchmarks import breakdown, gpu_suite, models, tuning
from benchmarks.shapes import ScanShape
from mmmamba.ops.scan.orders import directions_of

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys

class Blind:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmcv', 'mmdet', 'mmengine', 'numpy', 'matplotlib', 'triton', 'cv2', 'pycocotools'):
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Blind, sys.meta_path)
from benchmarks.gpu_suite import main
main(['--device', 'cpu', '--quick', '--budget', '3600', '--out', sys.argv[1]])
"""


def test_runs_with_pytorch_alone(tmp_path):
    done = subprocess.run([sys.executable, '-c', SCRIPT, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / 'report.txt').read_text()
    assert '== 0 failures' in report and 'skipped' not in report
    summary = report.partition('== summary')[2]
    for line in ('cpu, eager, fp32, forward+backward: unfused_over_this ', 'mamba-yolo_t, latency, eager: ',
                 'ODSS block, forward+backward, cpu: ', 'exponent against tokens, unfused_cpu: time '):
        assert line in summary
    columns = {'scan': 'unfused_over_this', 'networks': 'over_yolov8_s', 'blocks': 'of_unfused', 'breakdown': 'share'}
    for name, column in columns.items():
        with (tmp_path / f'{name}.csv').open() as file:
            assert any(row[column] for row in csv.DictReader(file)), name


def small_suite(tmp_path, budget):
    return gpu_suite.Suite(torch.device('cpu'), tmp_path, gpu_suite.QUICK, None, budget)


def test_sections_are_skipped_when_the_time_is_over(tmp_path):
    suite = small_suite(tmp_path, budget=4)
    gpu_suite.run(suite)
    report = (tmp_path / 'report.txt').read_text()
    assert report.count('skipped') == len(gpu_suite.sections(suite)) and not list(tmp_path.glob('*.csv'))


def test_a_section_that_fails_is_reported_and_the_next_one_runs(tmp_path, monkeypatch):
    suite = small_suite(tmp_path, budget=100)

    def fails(suite):
        raise ValueError('it broke')

    def measures(suite):
        suite.save('rows', [{'backend': 'cpu', 'median_ms': 1.0}, {'backend': 'torch', 'failure': 'disagrees'}])

    sections = [gpu_suite.Section('first', 1, fails), gpu_suite.Section('second', 1, measures)]
    monkeypatch.setattr(gpu_suite, 'sections', lambda suite: sections)
    gpu_suite.run(suite)
    assert len(suite.failures) == 2
    assert 'FAILED first: ValueError: it broke' in (tmp_path / 'report.txt').read_text()
    assert (tmp_path / 'rows.csv').read_text().count('\n') == 3


def test_no_suite_without_a_device(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip('there is one')
    with pytest.raises(SystemExit):
        gpu_suite.main(['--out', str(tmp_path)])
    assert 'no CUDA device' in capsys.readouterr().err


def test_models_beside_the_baseline(tmp_path):
    path = tmp_path / 'networks.csv'
    models.main(['--networks', 'yolov8_n', 'yolov8_s', '--kinds', 'latency', '--side', '32', '--seconds', '0',
                 '--csv', str(path)])
    with path.open() as file:
        rows = {row['network']: row for row in csv.DictReader(file)}
    small, base = rows['yolov8_n'], rows['yolov8_s']
    assert float(base['over_yolov8_s']) == 1
    assert float(small['over_yolov8_s']) == pytest.approx(
        float(small['median_ms']) / float(base['median_ms']), abs=1e-2)


def test_shares_of_operators():
    rows = breakdown.measure('yolov8_n', 32, torch.device('cpu'), passes=2, most=1000)
    shares = [row['share'] for row in rows]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=0.01)
    assert next(row['calls'] for row in rows if row['operator'] == 'aten::cat') == 4 + 8 + 1  # neck, C2f, SPPF


@dataclass(frozen=True)
class Sizes:
    chunk: int
    tile: int

    def __post_init__(self):
        if self.chunk % self.tile:
            raise ValueError('a chunk is whole tiles')


def test_descent_keeps_what_is_faster_and_skips_what_is_refused():
    tried = []

    def cost(sizes):
        tried.append(sizes)
        return abs(sizes.chunk - 64) + abs(sizes.tile - 32)

    best = tuning.descend(Sizes(16, 8), {'chunk': (16, 32, 64, 128), 'tile': (8, 24, 32, 64)}, cost)
    assert best == Sizes(64, 32)
    assert len(tried) == len(set(tried)) and all(sizes.tile != 24 for sizes in tried)


def test_options_are_fields_of_a_tiling():
    tiling = pytest.importorskip('mmmamba.ops.triton.tiling')
    assert tuning.OPTIONS.keys() <= {field.name for field in fields(tiling.Tiling)}


def test_kernels_are_given_what_the_fused_scan_takes():
    x, projected, delta, dt_weight, bias, A, D, W, *options = tuning.kernel_inputs(
        ScanShape(8, 6, 5, 2, 4), torch.device('cpu'))
    assert (x.shape, projected.shape, delta) == ((1, 30, 8), (1, 30, 4, 10), None)
    assert (dt_weight.shape, bias.shape, A.shape, D.shape) == ((4, 8, 2), (4, 8), (4, 8, 4), (4, 8))
    assert W is None
    assert options == [directions_of('cross'), 5, True] and all(t.is_contiguous() for t in (x, projected, A))
