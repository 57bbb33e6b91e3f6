"""tools/demo.py from the data to the pictures, on a thin model and a handful of images."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
from mmengine.config import Config
from tiny_demo import ROOT, compose_tiny, write_tiny_config


def run_demo(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / 'tools' / 'demo.py', '--work-dir', folder / 'out', *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=folder)


def test_own_data_is_trained_tested_and_drawn(tmp_path: Path) -> None:
    data = compose_tiny(tmp_path)
    content = json.loads((data / 'annotations' / 'train.json').read_text())
    result = run_demo(tmp_path, '--data', data, '--config', write_tiny_config(tmp_path))
    assert result.returncode == 0, result.stderr

    out, = (tmp_path / 'out').iterdir()
    table = (out / 'coco_table.txt').read_text()
    assert table in result.stdout and 'AP50' in table
    for name in ('predictions.png', 'curves.png'):
        assert str(out / name) in result.stdout
        assert cv2.imread(str(out / name)).std() > 1
    checkpoint = next(line.split()[1] for line in result.stdout.splitlines() if line.startswith('checkpoint '))
    assert Path(checkpoint).is_file() and Path(checkpoint).parent == out / 'train'
    classes = Config.fromfile(out / 'config.py').train_dataloader.dataset.dataset.metainfo.classes
    assert classes == tuple(category['name'] for category in content['categories'])


def test_a_folder_of_another_layout_gets_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    result = run_demo(tmp_path, '--data', tmp_path / 'nowhere')
    assert result.returncode == 2
    assert 'error: ' in result.stderr and 'no such folder (expected: ' in result.stderr
    assert 'Traceback' not in result.stderr
    assert not (tmp_path / 'out').exists()
