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

from mmmamba.analysis import video_file
from mmmamba.analysis.inference import Detector
from mmmamba.analysis.media import Video, write_picture
from mmmamba.analysis.video_file import VideoFile
from mmmamba.errors import InputError

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


@pytest.mark.parametrize('batch_size', [1, 3])
def test_what_cannot_be_done_in_a_folder_is_named_and_the_rest_done(
        setup: tuple[Path, Path, Path], tmp_path: Path, run_tool: RunTool, capsys: pytest.CaptureFixture[str],
        batch_size: int) -> None:
    config, weights, images = setup
    source, out = tmp_path / 'in', tmp_path / 'out'
    (source / 'folder.png').mkdir(parents=True)
    names = sorted(path.name for path in images.iterdir())
    for name in names:
        (source / name).write_bytes((images / name).read_bytes())
    picture = cv2.imread(str(images / names[0]))
    long_name = f'{"n" * 251}.png'  # NAME.json is longer than file systems allow
    for name in (long_name, 'occupied.png'):
        (source / name).write_bytes(cv2.imencode('.png', picture)[1].tobytes())
    (out / 'vis' / 'occupied.png').mkdir(parents=True)
    cv2.imwrite(str(source / 'flat.png'), np.full((2, 1600, 3), 90, np.uint8))
    cv2.imwrite(str(source / 'thin.png'), np.full((1600, 2, 3), 90, np.uint8))
    (source / '000000.jpg').write_bytes(b'this is no jpeg')
    (source / 'notes.txt').write_text('not looked at')
    assert run_tool('image_demo', source, config, weights, '--out-dir', out, '--batch-size', batch_size,
                    '--device', 'cpu') == 3

    assert sorted(path.name for path in (out / 'vis').iterdir() if path.is_file()) == names
    for name in names:
        drawn, original = cv2.imread(str(out / 'vis' / name)), cv2.imread(str(source / name))
        assert drawn.shape == original.shape and np.abs(drawn.astype(int) - original).max() > 60
        check_detections(json.loads((out / 'preds' / f'{name}.json').read_text()), 96, 96)
    lines = capsys.readouterr().err.splitlines()
    warnings = [line for line in lines if 'warning:' in line]
    for name in ('000000.jpg', 'flat.png', 'thin.png', 'occupied.png', long_name, 'notes.txt', 'folder.png'):
        assert sum(name in line for line in warnings) == 1, name
    assert len(warnings) == 7 and sum('has 0 pixels' in line for line in warnings) == 2
    assert [line for line in lines if line.startswith('error:')] == [
        'error: 5 of 8 image(s) could not be done; the warnings say why']


def test_inputs_are_not_overwritten(setup: tuple[Path, Path, Path], tmp_path: Path, run_tool: RunTool,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    config, weights, images = setup
    source = tmp_path / 'out' / 'vis'
    source.mkdir(parents=True)
    content = next(images.iterdir()).read_bytes()
    (source / 'a.png').write_bytes(content)
    assert run_tool('image_demo', source, config, weights, '--out-dir', tmp_path / 'out', '--device', 'cpu') == 2
    assert (source / 'a.png').read_bytes() == content
    assert 'is the input itself' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['a.png', 'b.heic', 'c.jpg'])
def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    picture = np.full((7, 1600, 3), 90, np.uint8)
    if name.endswith('.heic'):
        with pytest.raises(InputError, match='does not write .* as .heic'):
            write_picture(tmp_path / name, picture)
        assert not list(tmp_path.iterdir())
    else:
        write_picture(tmp_path / name, picture)
        assert cv2.imread(str(tmp_path / name)).shape == picture.shape
        assert len(list(tmp_path.iterdir())) == 1


class Like:
    fps, width, height = 10.0, 96, 96


def write_video(path: Path, picture: np.ndarray, frames: int) -> Path:
    with VideoFile(path, like=Like) as out:
        for _ in range(frames):
            out.write(picture)
    return path


def test_video(setup: tuple[Path, Path, Path], tmp_path: Path, run_tool: RunTool) -> None:
    config, weights, images = setup
    clip = write_video(tmp_path / 'clip.mp4', cv2.imread(str(next(images.iterdir()))), 5)
    assert run_tool('image_demo', clip, config, weights, '--out-dir', tmp_path / 'out', '--batch-size', 2,
                    '--device', 'cpu') == 0
    assert [path.name for path in (tmp_path / 'out' / 'vis').iterdir()] == ['clip.mp4']
    drawn = Video(tmp_path / 'out' / 'vis' / 'clip.mp4')
    assert (drawn.fps, drawn.width, drawn.height, len(list(drawn))) == (10.0, 96, 96, 5)
    found = json.loads((tmp_path / 'out' / 'preds' / 'clip.mp4.json').read_text())
    assert [frame['frame'] for frame in found['frames']] == list(range(5))
    check_detections(found['frames'][0], 96, 96)


def test_a_video_that_ends_early_is_named(setup: tuple[Path, Path, Path], tmp_path: Path, run_tool: RunTool,
                                          capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config, weights, images = setup
    clip = write_video(tmp_path / 'clip.mp4', cv2.imread(str(next(images.iterdir()))), 3)
    read = Video.__init__

    def announces_more(self: Video, path: Path) -> None:
        read(self, path)
        self.frame_count = 10

    monkeypatch.setattr(Video, '__init__', announces_more)
    assert run_tool('image_demo', clip, config, weights, '--out-dir', tmp_path / 'out', '--device', 'cpu') == 3
    assert 'only 3 of the 10 frames' in capsys.readouterr().err
    assert len(json.loads((tmp_path / 'out' / 'preds' / 'clip.mp4.json').read_text())['frames']) == 3


@pytest.mark.parametrize('spoil', ['size', 'interrupt', 'full'])
def test_no_half_written_video_is_left(tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_file, 'has_h264', lambda: False)
    path, frame = tmp_path / 'clip.mp4', np.zeros((96, 96, 3), np.uint8)
    path.write_bytes(b'of an earlier run')
    expected = KeyboardInterrupt if spoil == 'interrupt' else InputError
    with pytest.raises(expected), VideoFile(path, like=Like) as out:
        out.write(frame)
        if spoil == 'size':
            out.write(np.zeros((64, 96, 3), np.uint8))
        elif spoil == 'interrupt':
            raise KeyboardInterrupt
        else:  # OpenCV drops a frame that it cannot write, and says nothing
            out._encoder.close()
            out.write(frame)
    assert [found.name for found in tmp_path.iterdir()] == ['clip.mp4']
    assert path.read_bytes() == b'of an earlier run'


@pytest.mark.parametrize('out', ['file', 'file/below'])
def test_an_out_dir_that_cannot_be_made_gets_one_line(
        setup: tuple[Path, Path, Path], tmp_path: Path, run_tool: RunTool, capsys: pytest.CaptureFixture[str],
        out: str) -> None:
    config, weights, images = setup
    (tmp_path / 'file').write_text('a file')
    assert run_tool('image_demo', images, config, weights, '--out-dir', tmp_path / out, '--device', 'cpu') == 2
    assert 'error: --out-dir: cannot make the folder' in capsys.readouterr().err


@pytest.mark.parametrize('make, message', [
    (lambda folder: folder / 'absent.jpg', 'no such file or folder'),
    (lambda folder: folder, 'no image or video in this folder'),
    (lambda folder: write(folder / 'broken.jpg', b'no jpeg'), 'nothing is done: 1 of 1 image(s)'),
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


@pytest.mark.parametrize('loader', ['LoadCheckedImage', 'mmcv.LoadImageFromFile'])
def test_whichever_loader_a_config_has(setup: tuple[Path, Path, Path], loader: str) -> None:
    config, checkpoint, _ = setup
    cfg = Config.fromfile(config)
    cfg.test_dataloader.dataset.pipeline[0].type = loader
    detector = Detector(cfg, checkpoint, torch.device('cpu'))
    assert len(detector.detect([detector.prepare(np.zeros((40, 60, 3), np.uint8), Path('a.png'))])) == 1
