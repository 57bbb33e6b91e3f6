"""tools/image_demo.py on a thin model of random weights: what it writes, and how it fails."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny_demo import ROOT, compose_tiny, write_tiny_config

from mmmamba.demo.media import Video, VideoFile

RunTool = Callable[..., int]


@pytest.fixture(scope='module')
def setup(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Config, checkpoint and a folder of three images."""
    folder = tmp_path_factory.mktemp('image_demo')
    config = write_tiny_config(folder)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(config).model)
    for branch in model.bbox_head.cls_branches:
        torch.nn.init.constant_(branch[-1].bias, 0.0)  # scores of about one half, so that there is something to write
    classes = tuple(f'digit {i}' for i in range(10))
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': classes}}},
               folder / 'weights.pth')
    return config, folder / 'weights.pth', compose_tiny(folder) / 'val'


def check_detections(found: dict, width: int, height: int) -> None:
    assert len(found['bboxes']) == len(found['labels']) == len(found['scores']) == len(found['class_names']) > 0
    assert found['class_names'] == [f'digit {label}' for label in found['labels']]
    assert found['scores'] == sorted(found['scores'], reverse=True) and min(found['scores']) >= 0.3
    boxes = np.array(found['bboxes'])
    assert (boxes >= 0).all() and (boxes[:, 0::2] <= width).all() and (boxes[:, 1::2] <= height).all()


@pytest.mark.parametrize('batch_size', [1, 2])
def test_folder(setup: tuple[Path, Path, Path], tmp_path: Path, run_tool: RunTool,
                capsys: pytest.CaptureFixture[str], batch_size: int) -> None:
    config, weights, images = setup
    source = tmp_path / 'in'
    source.mkdir()
    for path in images.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    (source / '000000.jpg').write_bytes(b'this is no jpeg')
    (source / 'notes.txt').write_text('not looked at')
    assert run_tool('image_demo', source, config, weights, '--out-dir', tmp_path / 'out', '--batch-size', batch_size,
                    '--device', 'cpu') == 0

    names = sorted(path.name for path in images.iterdir())
    assert sorted(path.name for path in (tmp_path / 'out' / 'vis').iterdir()) == names
    assert sorted(path.name for path in (tmp_path / 'out' / 'preds').iterdir()) == [f'{name}.json' for name in names]
    for name in names:
        drawn, original = cv2.imread(str(tmp_path / 'out' / 'vis' / name)), cv2.imread(str(source / name))
        assert drawn.shape == original.shape and np.abs(drawn.astype(int) - original).max() > 60
        check_detections(json.loads((tmp_path / 'out' / 'preds' / f'{name}.json').read_text()), 96, 96)
    warnings = [line for line in capsys.readouterr().err.splitlines() if 'warning:' in line]
    assert len(warnings) == 1 and '000000.jpg' in warnings[0]


def test_video(setup: tuple[Path, Path, Path], tmp_path: Path, run_tool: RunTool) -> None:
    config, weights, images = setup
    picture = cv2.imread(str(next(images.iterdir())))

    class Like:
        fps, width, height = 10.0, 96, 96

    with VideoFile(tmp_path / 'clip.mp4', like=Like) as out:
        for _ in range(5):
            out.write(picture)
    assert run_tool('image_demo', tmp_path / 'clip.mp4', config, weights, '--out-dir', tmp_path / 'out',
                    '--batch-size', 2, '--device', 'cpu') == 0
    drawn = Video(tmp_path / 'out' / 'vis' / 'clip.mp4')
    assert (drawn.fps, drawn.width, drawn.height, len(list(drawn))) == (10.0, 96, 96, 5)
    found = json.loads((tmp_path / 'out' / 'preds' / 'clip.mp4.json').read_text())
    assert [frame['frame'] for frame in found['frames']] == list(range(5))
    check_detections(found['frames'][0], 96, 96)


@pytest.mark.parametrize('make, message', [
    (lambda folder: folder / 'absent.jpg', 'no such file or folder'),
    (lambda folder: folder, 'no image in this folder'),
    (lambda folder: write(folder / 'broken.jpg', b'no jpeg'), 'none of its 1 image(s) is readable'),
    (lambda folder: write(folder / 'clip.mp4', b'no video'), 'not readable as an image or a video'),
])
def test_bad_source_gets_one_line(setup: tuple[Path, Path, Path], tmp_path: Path, run_tool: RunTool,
                                  capsys: pytest.CaptureFixture[str], make, message: str) -> None:
    config, weights, _ = setup
    source = tmp_path / 'in'
    source.mkdir()
    assert run_tool('image_demo', make(source), config, weights, '--out-dir', tmp_path / 'out', '--device', 'cpu') == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error:')]
    assert len(errors) == 1 and message in errors[0]


def test_checkpoint_of_another_architecture_gets_one_line(
        setup: tuple[Path, Path, Path], tmp_path: Path, run_tool: RunTool,
        capsys: pytest.CaptureFixture[str]) -> None:
    _, weights, images = setup
    other = ROOT / 'configs' / 'mamba_yolo' / 'mamba-yolo_t_demo.py'
    assert run_tool('image_demo', images, other, weights, '--out-dir', tmp_path / 'out', '--device', 'cpu') == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error:')]
    assert len(errors) == 1 and 'weights.pth does not fit' in errors[0]
    assert not (tmp_path / 'out').exists()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
