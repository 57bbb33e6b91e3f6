"""tools/demo.py from the data to the pictures, on a thin model and a handful of images."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from mmengine.config import Config
from tiny_demo import compose_tiny, write_tiny_config


def test_own_data_is_trained_tested_and_drawn(tmp_path: Path, run_tool: Callable[..., int],
                                              capfd: pytest.CaptureFixture[str]) -> None:
    data = compose_tiny(tmp_path)
    content = json.loads((data / 'annotations' / 'train.json').read_text())
    status = run_tool('demo', '--data', data, '--config', write_tiny_config(tmp_path), '--work-dir', tmp_path / 'out')
    printed, errors = capfd.readouterr()
    assert status == 0, errors

    out, = (tmp_path / 'out').iterdir()
    table = (out / 'coco_table.txt').read_text()
    assert table in printed and 'AP50' in table
    for name in ('predictions.png', 'curves.png'):
        assert str(out / name) in printed
        assert cv2.imread(str(out / name)).std() > 1
    checkpoint = next(line.split()[1] for line in printed.splitlines() if line.startswith('checkpoint '))
    assert Path(checkpoint).is_file() and Path(checkpoint).parent == out / 'train'
    classes = Config.fromfile(out / 'config.py').train_dataloader.dataset.dataset.metainfo.classes
    assert classes == tuple(category['name'] for category in content['categories'])


def test_a_folder_of_another_layout_gets_one_line_and_leaves_nothing(
        tmp_path: Path, run_tool: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tool('demo', '--data', tmp_path / 'nowhere', '--work-dir', tmp_path / 'out') == 2
    error, = capsys.readouterr().err.splitlines()
    assert error.startswith('error: ') and 'no such folder (expected: ' in error
    assert not (tmp_path / 'out').exists()
