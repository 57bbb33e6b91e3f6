"""mmmamba predict, and the Detector in Python, on a thin model of random weights."""
from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from pycocotools import mask as mask_util
from tiny_demo import compose_tiny, write_tiny_config

from mmmamba import Detector
from mmmamba.analysis import video_file
from mmmamba.analysis.media import Video
from mmmamba.analysis.slicing import SlicedDetector
from mmmamba.errors import InputError
from mmmamba.models.encoded_masks import EncodedMasks
from mmmamba.package_files import find_config

CLASSES = tuple(f'digit {number}' for number in range(10))
BOUNDARY = b'--frame\r\nContent-Type: image/jpeg\r\n\r\n'


def save_weights(config: Config, path: Path, classes: tuple[str, ...] | None) -> None:
    """Saves a model's first weights, with scores of about one half, so that there is something to find."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
    for branch in model.bbox_head.cls_branches:
        torch.nn.init.constant_(branch[-1].bias, 0.0)
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': classes}} if classes else {}},
               path)


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Config, checkpoint and a folder of three images."""
    folder = tmp_path_factory.mktemp('predict')
    config = write_tiny_config(folder)
    save_weights(Config.fromfile(config), folder / 'weights.pth', CLASSES)
    return config, folder / 'weights.pth', compose_tiny(folder) / 'val'


@pytest.fixture
def predict(files: tuple[Path, Path, Path], tmp_path: Path, run_command: Callable[..., int]) -> Callable[..., int]:
    """A function that runs the command with sources and options, into ``tmp_path / 'out'``."""
    def call(*arguments: object) -> int:
        return run_command('predict', *files[:2], '--device', 'cpu', '--out-dir', tmp_path / 'out', *arguments)
    return call


@pytest.fixture(scope='module')
def server(files: tuple[Path, Path, Path]) -> Iterator[str]:
    """Address of a server with /picture.jpg and /camera, a stream of ten pictures."""
    content = next(files[2].iterdir()).read_bytes()
    jpeg = cv2.imencode('.jpg', cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))[1].tobytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            streams = self.path == '/camera'
            self.send_response(200)
            self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=frame' if streams else 'image/jpeg')
            self.end_headers()
            self.wfile.write((BOUNDARY + jpeg + b'\r\n') * 10 if streams else jpeg)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=running.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True).start()
    yield f'http://127.0.0.1:{running.server_port}'
    running.shutdown()
    running.server_close()


def written(folder: Path) -> dict[str, list[str]]:
    """Names of the files in each folder of the output."""
    return {path.name: sorted(str(file.relative_to(path)) for file in path.rglob('*') if file.is_file())
            for path in sorted((folder / 'out').iterdir())}


def test_several_sources_with_everything_that_can_be_saved(
        files: tuple[Path, Path, Path], predict: Callable[..., int], tmp_path: Path, server: str,
        capsys: pytest.CaptureFixture[str]) -> None:
    image = sorted(files[2].iterdir())[0]
    assert predict(image, f'{files[2]}/{image.name[:-1]}*', f'{server}/picture.jpg', 'absent.jpg', '--save-txt',
                   '--save-conf', '--save-crops', '--classes', 'digit 0,digit 1', '--score', 0.1) == 3
    stem = image.stem
    images = sorted([image.name, f'{stem}_2{image.suffix}', 'picture.jpg'])
    outputs = written(tmp_path)
    assert outputs['vis'] == images and outputs['preds'] == sorted(f'{name}.json' for name in images)
    assert outputs['labels'] == sorted(f'{Path(name).stem}.txt' for name in images)
    first = json.loads((tmp_path / 'out' / 'preds' / f'{image.name}.json').read_text())
    assert first == json.loads((tmp_path / 'out' / 'preds' / f'{stem}_2{image.suffix}.json').read_text())
    assert first['file'] == str(image) and set(first['class_names']) <= {'digit 0', 'digit 1'}
    lines = (tmp_path / 'out' / 'labels' / f'{stem}.txt').read_text().splitlines()
    assert [int(line.split()[0]) for line in lines] == first['labels'] and len(lines[0].split()) == 6
    assert len(outputs['crops']) > 0
    printed = capsys.readouterr()
    assert '3 image(s) in ' in printed.out and str(tmp_path / 'out' / 'labels') in printed.out
    assert printed.err.splitlines()[-1] == 'error: 1 source(s) could not be done; the warnings say why'
    assert 'warning: absent.jpg: no such file or folder; left out' in printed.err


def test_a_stream_until_it_ends(predict: Callable[..., int], tmp_path: Path, server: str) -> None:
    assert predict(f'{server}/camera') == 0
    outputs = written(tmp_path)
    assert outputs == {'vis': ['camera.mp4'], 'preds': ['camera.json']}
    frames = json.loads((tmp_path / 'out/preds/camera.json').read_text())['frames']
    assert len(frames) >= 1 and Video(tmp_path / 'out/vis/camera.mp4').frame_count >= 1


def test_a_camera_until_ctrl_c(files: tuple[Path, Path, Path], predict: Callable[..., int], tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    picture, opened = cv2.imread(str(next(files[2].iterdir()))), cv2.VideoCapture

    class Camera:
        frames = 0

        def read(self) -> tuple[bool, np.ndarray]:
            self.frames += 1
            if self.frames == 20:
                os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.02)
            return True, picture

        def get(self, _: int) -> float:
            return 30.0

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, 'VideoCapture', lambda place: Camera() if place == 0 else opened(place))
    monkeypatch.setattr(video_file, 'has_h264', lambda: False)
    monkeypatch.setattr('mmmamba.commands.predict.has_h264', lambda: False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which whoever started the tests may ignore
    try:
        assert predict('0') == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert written(tmp_path) == {'vis': ['camera_0.mp4'], 'preds': ['camera_0.json']}
    assert json.loads((tmp_path / 'out/preds/camera_0.json').read_text())['file'] == 'camera 0'
    assert capsys.readouterr().err.count('pip install av') == 1


@pytest.mark.parametrize('options, message', [
    (['--classes', 'digit 11'], 'did you mean digit 1'),
    (['--classes', 'person'], 'there are digit 0, digit 1'),
    (['--classes', ' , '], 'must be names, with commas'),
    (['--score', '2'], 'must be a score from 0 to 1'),
    (['--batch-size', '0'], 'must be a whole number from 1'),
    (['--score', 'nan'], 'must be a score from 0 to 1'),
    (['--device', 'gpu'], '--device gpu: must be cpu, cuda or cuda:N'),
    (['--track'], '--track is for videos'),
    (['--save-conf'], '--save-txt'),
    (['--slice', '8'], 'must be at least 32'),
    (['--show'], 'OpenCV opens no window here'),
])
def test_options_that_cannot_be_followed_are_one_line(
        files: tuple[Path, Path, Path], predict: Callable[..., int], tmp_path: Path, options: list[str], message: str,
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    assert predict(files[2], *options) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if 'error: ' in line]
    assert len(errors) == 1 and message in errors[0]
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('option, package', [('--track', 'trackers'), ('--slice', 'supervision')])
def test_a_missing_package_is_one_line(files: tuple[Path, Path, Path], predict: Callable[..., int], tmp_path: Path,
                                       option: str, package: str, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    find_spec = sys.modules['importlib.util'].find_spec
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr('importlib.util.find_spec',
                        lambda name, *more: None if name == package else find_spec(name, *more))
    with video_file.VideoFile(tmp_path / 'clip.mp4', like=Clip) as clip:
        clip.write(np.zeros((32, 32, 3), np.uint8))
    assert predict(tmp_path / 'clip.mp4', option) == 2
    assert f'error: the package {package} is missing: pip install {package}' in capsys.readouterr().err


class Clip:
    fps, width, height = 10.0, 32, 32


def test_tracks_and_parts_of_a_video(predict: Callable[..., int], tmp_path: Path) -> None:
    pytest.importorskip('trackers')
    with video_file.VideoFile(tmp_path / 'clip.mp4', like=Clip) as clip:
        for _ in range(3):
            clip.write(np.full((32, 32, 3), 90, np.uint8))
    assert predict(tmp_path / 'clip.mp4', '--track', '--slice', '32', '--no-save-vis') == 0
    assert written(tmp_path) == {'preds': ['clip.mp4.json']}
    frames = json.loads((tmp_path / 'out/preds/clip.mp4.json').read_text())['frames']
    assert [frame['time'] for frame in frames] == [0.0, 0.1, 0.2]
    assert set(frames[0]['track_ids']) == {-1} and max(frames[2]['track_ids']) >= 0


class FindsBright:
    """Finds what is bright in a picture, a box and a mask for each spot: bitmaps, or run lengths."""

    def __init__(self, encoded: bool) -> None:
        self.encoded = encoded

    def prepare(self, image: np.ndarray, path: Path) -> np.ndarray:
        return image

    def detect(self, images: list[np.ndarray]) -> list[DetDataSample]:
        return [self.find(image) for image in images]

    def find(self, image: np.ndarray) -> DetDataSample:
        number, spots, facts, _ = cv2.connectedComponentsWithStats((image[..., 0] > 99).astype(np.uint8))
        boxes = [(x, y, x + width, y + height) for x, y, width, height, _ in facts[1:]]
        masks = np.array([spots == spot for spot in range(1, number)]).reshape(-1, *image.shape[:2])
        runs = [mask_util.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
        return DetDataSample(pred_instances=InstanceData(
            bboxes=torch.tensor(boxes).float().reshape(-1, 4), scores=torch.full((number - 1,), 0.5),
            labels=torch.zeros(number - 1, dtype=torch.long),
            masks=EncodedMasks(runs, *image.shape[:2]) if self.encoded else torch.from_numpy(masks)))


@pytest.mark.parametrize('encoded', [True, False])
def test_masks_of_parts_are_those_of_the_whole_picture(encoded: bool) -> None:
    pytest.importorskip('supervision')
    image = np.zeros((70, 150, 3), np.uint8)
    spots = [((10, 12), 4), ((57, 40), 5), ((135, 50), 6)]  # the second is in the overlap of two parts
    for centre, radius in spots:
        cv2.circle(image, centre, radius, (255, 255, 255), -1)
    detector = SlicedDetector(FindsBright(encoded), 64)
    found, none = detector.detect([detector.prepare(picture, Path('a.png')) for picture in (image, image * 0)])
    expected = FindsBright(encoded).find(image).pred_instances
    masks = found.pred_instances.masks
    order = found.pred_instances.bboxes[:, 0].argsort()
    assert torch.equal(found.pred_instances.bboxes[order], expected.bboxes[expected.bboxes[:, 0].argsort()])
    assert np.array_equal(np.max([*masks], axis=0), image[..., 0] > 99)
    for box, mask in zip(found.pred_instances.bboxes.int().tolist(), masks):
        assert cv2.boundingRect(mask) == (box[0], box[1], box[2] - box[0], box[3] - box[1])
    assert len(none.pred_instances.masks) == len(none.pred_instances.bboxes) == 0


@pytest.mark.parametrize('name', ['mamba-yolo_t', 'mamba-yolo-seg_t'])
def test_results_in_python_go_to_supervision(files: tuple[Path, Path, Path], name: str, tmp_path: Path) -> None:
    supervision = pytest.importorskip('supervision')
    thin = Config.fromfile(find_config(name))
    thin.merge_from_dict({
        'model.backbone': dict(arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 16, 16)),
        'model.neck.in_channels': [16, 16, 16], 'model.bbox_head.in_channels': [16, 16, 16],
        'model.test_cfg.nms_pre': 100, 'model.test_cfg.max_per_img': 10})
    save_weights(thin, tmp_path / 'weights.pth', None)
    detector = Detector(thin, tmp_path / 'weights.pth', 'cpu')
    if '-seg' in name:
        image = cv2.imread(str(next(files[2].iterdir())))
        sliced = SlicedDetector(detector, 64)
        found = detector.choose(sliced.detect([sliced.prepare(image, Path('a.png'))])[0], 0.3)
        assert len(found.masks) == len(found) > 0 and detector.draw(image, found).shape == image.shape
        assert {tuple(mask['size']) for mask in detector.describe(found)['masks']} == {image.shape[:2]}
    paths = [str(path) for path in sorted(files[2].iterdir())[:2]]
    results = detector(paths, batch_size=2, return_datasamples=True)['predictions']
    assert len(results) == len(paths)
    for path, result in zip(paths, results):
        detections = supervision.Detections.from_mmdetection(result)
        height, width = cv2.imread(path).shape[:2]
        assert len(detections) > 0 and (detections.xyxy <= [width, height, width, height]).all()
        assert all(0 <= label < len(detector.classes) for label in detections.class_id)
        if '-seg' in name:
            assert detections.mask.shape == (len(detections), height, width)


def test_a_detector_draws_and_describes_as_det_inferencer_does(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    config, weights, images = files
    detector = Detector(config, weights, 'cpu')
    image = str(next(images.iterdir()))
    result, = detector(image, out_dir=str(tmp_path), no_save_pred=False)['predictions']
    assert len(result['bboxes']) == len(result['scores']) > 0
    drawn, original = (cv2.imread(str(path)) for path in (tmp_path / 'vis' / Path(image).name, image))
    assert drawn.shape == original.shape and np.abs(drawn.astype(int) - original).max() > 60
    assert (tmp_path / 'preds' / f'{Path(image).stem}.json').is_file()


@pytest.mark.parametrize('words', [[], ['weights.pth', 'images'], ['--weights', 'weights.pth']], ids=str)
def test_too_few_words_are_one_line(run_command: Callable[..., int], words: list[str],
                                    capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command('predict', *words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert 'it takes CONFIG CHECKPOINT SOURCE ..., or --weights CHECKPOINT SOURCE ...; got ' in error


def test_a_checkpoint_runs_with_the_config_next_to_it(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    config, weights, images = files
    alone = tmp_path / weights.name
    alone.write_bytes(weights.read_bytes())
    with pytest.raises(InputError, match='name it, as in .*Detector'):
        Detector(weights=alone, device='cpu')
    Config.fromfile(config).dump(tmp_path / config.name)
    image = str(next(images.iterdir()))
    found, expected = (detector(image)['predictions'] for detector in (
        Detector(weights=alone, device='cpu'), Detector(config, weights, 'cpu')))
    assert found == expected and found[0]['scores']
    with pytest.raises(InputError, match='needs weights'):
        Detector(config)


def test_a_config_of_an_unknown_name_is_one_line_in_python() -> None:
    with pytest.raises(InputError, match='no config of that name; did you mean mamba-yolo_'):
        Detector('mamba-yolo_x', 'weights.pth')
