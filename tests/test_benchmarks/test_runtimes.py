"""The benchmark of runtimes on a small image."""
from __future__ import annotations

import csv

import pytest

pytest.importorskip('onnxruntime')

from benchmarks import runtimes


def test_writes_rows(tmp_path, capsys):
    path = tmp_path / 'rows.csv'
    runtimes.main(['--threads', '1', '--seconds', '0', '--networks', 'yolov8_s', '--ways', 'PyTorch', 'ONNX Runtime',
                   '--side', '64', '--csv', str(path)])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row['runtime'] for row in rows] == ['PyTorch', 'ONNX Runtime']
    assert rows[0]['over_yolov8_s'] == rows[0]['over_pytorch'] == '1.0'
    assert all(float(row['median_ms']) > 0 and float(row['over_yolov8_s']) > 0 for row in rows)
    assert 'over_yolov8_s' in capsys.readouterr().out


def test_plot_needs_its_unit_and_draws(tmp_path, capsys):
    path = tmp_path / 'rows.png'
    with pytest.raises(SystemExit):
        runtimes.main(['--networks', 'mamba-yolo_t', '--plot', str(path)])
    assert 'measure it too' in capsys.readouterr().err
    pytest.importorskip('matplotlib')
    rows = [dict(network=network, runtime='PyTorch', median_ms=median, over_yolov8_s=median / 200)
            for network, median in (('mamba-yolo_t', 300.0), ('yolov8_s', 200.0))]
    runtimes.plot(rows, path)
    assert path.read_bytes().startswith(b'\x89PNG') and path.stat().st_size > 5000
