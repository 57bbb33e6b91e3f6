"""The benchmark of a network over a CNN, on small images."""
from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import against_cnn, models
from benchmarks.against_cnn import SETTINGS, busy_machine, measure
from mmmamba.analysis.measure import Effort
from mmmamba.deploy import fuse

CPU = torch.device('cpu')


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def is_gone(process: subprocess.Popen) -> bool:
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    return process.returncode is not None


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize('name', SETTINGS)
def test_a_row_has_both_networks_and_the_quotient_of_their_times(name):
    setting = SETTINGS[name]._replace(side=64)
    row = measure(name, setting, against_cnn.PAIR, Effort.rounds(2))
    assert (row['network'], row['baseline'], row['side']) == ('mamba-yolo_t', 'yolov8_s', 64)
    assert row['ratio'] == pytest.approx(row['median_ms'] / row['baseline_median_ms'], abs=1e-3)
    assert row['goal'] == setting.goal
    for prefix in ('', 'baseline_'):
        assert 0 < row[f'{prefix}p20_ms'] <= row[f'{prefix}median_ms'] <= row[f'{prefix}p80_ms']
        assert row[f'{prefix}images_per_s'] == pytest.approx(1e3 * row['batch'] / row[f'{prefix}median_ms'], rel=1e-2)


def test_writes_rows_and_a_picture(tmp_path, capsys, one_thread):
    pytest.importorskip('matplotlib')
    rows, picture = tmp_path / 'rows.csv', tmp_path / 'rows.png'
    against_cnn.main([
        '--networks', 'yolov8_n', 'yolov8_s', '--settings', 'inference', 'training', '--side', '32', '--batch', '2',
        '--threads', '1', '--seconds', '0', '--csv', str(rows), '--plot', str(picture)])
    first, second = table(rows)
    assert (first['setting'], second['setting']) == ('inference', 'training')
    for row in (first, second):
        assert (row['network'], row['baseline'], row['batch'], row['side']) == ('yolov8_n', 'yolov8_s', '2', '32')
        assert row['device'].startswith('cpu ') and row['threads'] == '1' and 'cpu_flags' in row
        assert 'goal' not in row
    printed = capsys.readouterr().out
    assert first['device'] in printed and 'ratio' in printed
    assert picture.read_bytes().startswith(b'\x89PNG')


def test_draws_what_was_read_from_a_file(tmp_path):
    pytest.importorskip('matplotlib')
    row = dict(setting='training', precision='float32', batch='4', side='320', network='mamba-yolo_t', busy='0',
               baseline='yolov8_s', median_ms='110', baseline_median_ms='100', device='cpu', threads='1', torch='2',
               cpu_flags='avx2')
    path = tmp_path / 'rows.png'
    against_cnn.plot([{**row, 'ratio': ratio, 'goal': goal} for ratio, goal in (
        ('1.1', '1.0'), ('0.9', '1.0'), ('1.1', ''))], path)
    assert path.read_bytes().startswith(b'\x89PNG') and path.stat().st_size > 5000


@pytest.mark.parametrize('options, has_goal', [
    ((), True), (('--side', '640', '--batch', '1'), True), (('--side', '64'), False), (('--batch', '2'), False),
    (('--networks', 'mamba-yolo_b', 'yolov8_s'), False)])
def test_a_goal_is_for_its_own_setting_and_networks(options, has_goal):
    args = against_cnn.parse_args(['--settings', 'inference', *options])
    assert (against_cnn.chosen_settings(args)['inference'].goal is not None) is has_goal


@pytest.mark.parametrize('options', [('--side', '50'), ('--batch', '0'), ('--busy', '-1'),
                                     ('--networks', 'yolov8_s', 'yolov8_s')])
def test_options_without_a_meaning_are_refused(options, capsys):
    with pytest.raises(SystemExit):
        against_cnn.parse_args(options)
    assert options[0] in capsys.readouterr().err


def test_other_processes_compute_while_networks_are_timed_and_end_after_an_error(monkeypatch, one_thread):
    started: list[subprocess.Popen] = []

    class Noted(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

    def fails(*_):
        assert len(started) == 2 and all(other.poll() is None for other in started)
        raise ArithmeticError('it broke')

    monkeypatch.setattr(subprocess, 'Popen', Noted)
    monkeypatch.setattr(against_cnn, 'measure', fails)
    with pytest.raises(ArithmeticError, match='it broke'):
        against_cnn.main(['--threads', '1', '--busy', '2'])
    assert len(started) == 2 and all(map(is_gone, started))


def test_one_that_cannot_start_is_an_error(monkeypatch):
    monkeypatch.setattr(against_cnn, 'COMPUTE', 'raise SystemExit(1)')
    with pytest.raises(RuntimeError, match='busy has ended'), busy_machine(1):
        pass


def test_one_whose_benchmark_is_gone_ends():
    done = subprocess.run([sys.executable, '-c', against_cnn.COMPUTE, '-1'], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, [b'computing'])


@pytest.mark.parametrize('precision, weights, outputs', [
    (models.FLOAT32, torch.float32, torch.float32), (models.BFLOAT16_WEIGHTS, torch.bfloat16, torch.bfloat16),
    (models.BFLOAT16_AUTOCAST, torch.float32, torch.bfloat16)])
def test_precision_is_that_of_weights_and_results(precision, weights, outputs, monkeypatch):
    built = []
    monkeypatch.setattr(models, 'fuse', lambda network: built.append(fuse(network)) or built[0])
    run = models.inference('yolov8_n', 1, 32, CPU, precision)
    assert {parameter.dtype for parameter in built[0].parameters()} == {weights}
    assert {output.dtype for output in run()} == {outputs}


@pytest.mark.parametrize('fused', [False, True])
def test_a_network_is_prepared_for_training_if_asked(fused, monkeypatch):
    prepared = []
    monkeypatch.setattr(models, 'fuse_for_training', lambda network: prepared.append(network) or network)
    models.training_step('yolov8_n', 1, 32, CPU, models.FLOAT32, fused)
    assert len(prepared) == fused
