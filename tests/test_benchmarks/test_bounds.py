"""benchmarks.bounds: what it counts, against what is known of the networks."""
from __future__ import annotations

import csv
from types import MappingProxyType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import bounds
from benchmarks.networks import build_network
from benchmarks.shapes import scans_of
from mmmamba.ops.cpu import native

SIDE = 64
RATES = bounds.Rates({torch.float32: 1e9, torch.bfloat16: 2e9}, 1e9)


@pytest.fixture(autouse=True)
def small_settings(monkeypatch):
    monkeypatch.setattr(bounds, 'SETTINGS', MappingProxyType(
        {name: setting._replace(batch=1, side=SIDE) for name, setting in bounds.SETTINGS.items()}))


def test_products_are_half_the_flops_of_the_convolutions():
    rows = bounds.measure('yolov8_n', 'inference', 2, RATES)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build_network('yolov8_n')(torch.rand(1, 3, SIDE, SIDE))
    assert rows[0]['operator'] == 'all'
    assert rows[0]['gproducts'] == pytest.approx(counter.get_total_flops() / 2e9, abs=1e-3)
    times = [row['ms'] for row in rows[1:]]
    assert times == sorted(times, reverse=True) and sum(times) == pytest.approx(rows[0]['ms'], abs=0.1)


@pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))
def test_products_of_scans():
    rows = {row['operator']: row for row in bounds.measure('mamba-yolo_t', 'training', 2, RATES)}
    steps = sum(times * 4 * shape.height * shape.width * shape.channels * 16
                for shape, times in scans_of('t', SIDE).items())
    for name, products in bounds.PRODUCTS_OF_A_STEP.items():
        assert rows[name]['calls'] == 10
        assert rows[name]['gproducts'] == pytest.approx(products * steps / 1e9, abs=1e-3)
        assert rows[name]['bound_ms'] >= products * steps / 1e6 - 1e-3  # as rounded


def test_a_bound_is_the_longer_of_the_two():
    assert RATES.seconds(bounds.Work(4e9, torch.bfloat16, 1e9)) == 2
    assert RATES.seconds(bounds.Work(1e9, torch.float32, 3e9)) == 3
    assert RATES.seconds(bounds.Work(0, torch.int64, 1e9)) == 1


def test_views_touch_no_memory_and_in_place_sums_do():
    x = torch.zeros(4, 8)
    recorder = bounds.Recorder()
    with recorder:
        x.view(32)
        x.add_(1)
        x + x
    works = {name: calls[0][1].bytes for name, calls in recorder.calls.items()}
    assert works == {'aten.view': 0, 'aten.add_': 128, 'aten.add': 256}


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bounds, 'rates', lambda: RATES)
    bounds.main(['--networks', 'yolov8_n', '--settings', 'inference-bf16', '--passes', '1', '--rows', '2', '--csv',
                 str(tmp_path / 'bounds.csv')])
    printed = capsys.readouterr().out
    with (tmp_path / 'bounds.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['operator'] for row in rows][:2] == ['all', 'aten.conv2d'] and len(rows) == 3
    assert 'gproducts_per_s_float32: 1.0' in printed and 'aten.conv2d' in printed
    with pytest.raises(SystemExit):
        bounds.main(['--rows', '0'])
