"""Detections that are numbered, found in parts, drawn, and handed to supervision."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmmamba.analysis.prediction_outputs import FrameLog, Outputs, yolo_lines
from mmmamba.analysis.slicing import SlicedDetector
from mmmamba.analysis.tracking import Tracker
from mmmamba.analysis.visualizer import draw_instances
from mmmamba.errors import InputError


def instances(boxes: list[list[float]], scores: list[float], **more: torch.Tensor) -> InstanceData:
    return InstanceData(bboxes=torch.tensor(boxes).float().reshape(-1, 4), scores=torch.tensor(scores),
                        labels=torch.zeros(len(scores)).long(), **more)


def test_two_objects_keep_their_numbers_while_they_move() -> None:
    pytest.importorskip('trackers')
    tracker = Tracker(0.3, 10.0)
    seen = []
    for step in range(6):
        boxes = [[5 + 4 * step, 10, 35 + 4 * step, 50], [100, 100 - 3 * step, 140, 150 - 3 * step]]
        scores = [0.9, 0.2 if step == 3 else 0.8]  # for a moment it is hardly seen
        order = [0, 1] if step % 2 else [1, 0]
        found = instances([boxes[i] for i in order], [scores[i] for i in order])
        tracker.update(found)
        seen.append([int(found.track_ids[order.index(i)]) for i in (0, 1)])
    assert seen[0] == [-1, -1] and len({tuple(ids) for ids in seen[1:]}) == 1
    assert len(set(seen[-1])) == 2 and min(seen[-1]) >= 0
    empty = instances([], [])
    tracker.update(empty)
    assert len(empty.track_ids) == 0


class BrightParts:
    """A detector that finds the bright rectangle in what it sees, and says how large that was."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def prepare(self, image: np.ndarray, path: Path) -> dict:
        self.sizes.append(image.shape[:2])
        return {'image': image}

    def detect(self, prepared: list[dict]) -> list[DetDataSample]:
        samples = []
        for picture in prepared:
            rows, columns = (picture['image'].max(axis=(axis, 2)).nonzero()[0] for axis in (1, 0))
            boxes = [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]] if len(rows) else []
            samples.append(DetDataSample(pred_instances=instances(boxes, [0.9] * len(boxes))))
        return samples


@pytest.mark.parametrize('size', [(200, 333), (64, 64), (20, 400)])
def test_an_object_is_found_once_in_the_parts_of_a_picture(size: tuple[int, int]) -> None:
    pytest.importorskip('supervision')
    detector = BrightParts()
    picture = np.zeros((*size, 3), np.uint8)
    picture[4:14, 30:44] = 255
    sliced = SlicedDetector(detector, 64)
    sample, = sliced.detect([sliced.prepare(picture, Path('a.png'))])
    assert sample.pred_instances.bboxes.tolist() == [[30, 4, 44, 14]]
    assert max(max(seen) for seen in detector.sizes) == 64 and sample.ori_shape == size
    nothing, = sliced.detect([sliced.prepare(np.zeros((80, 80, 3), np.uint8), Path('a.png'))])
    assert len(nothing.pred_instances) == len(nothing.pred_instances.labels) == 0


@pytest.mark.parametrize('size', [(100, 80), (640, 480), (2000, 1000)])
def test_lines_and_labels_are_as_large_as_the_picture_asks_for(size: tuple[int, int]) -> None:
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    box = [0.4 * width, 0.4 * height, 0.9 * width, 0.9 * height]
    drawn = draw_instances(picture, instances([box], [0.9]), ['thing'], [(250, 200, 10)])
    assert drawn.shape == picture.shape and not picture.any()
    column = drawn[round(0.8 * height)].any(axis=1)
    assert 1 <= column[:width // 2].sum() <= 1 + 0.005 * width
    label = drawn[:round(0.4 * height)].any(axis=2).any(axis=1).sum()
    assert max(11, 0.018 * (width + height) / 2) <= label <= max(16, 0.035 * (width + height) / 2)
    assert draw_instances(picture, instances([], []), ['thing'], None).any() == 0


def test_labels_that_do_not_fit_stay_inside(tmp_path: Path) -> None:
    found = instances([[0, 0, 30, 20], [25, 15, 30, 20]], [0.9, 0.8], track_ids=torch.tensor([7, -1]))
    drawn = draw_instances(np.zeros((20, 30, 3), np.uint8), found, ['Straßenbahn, ein langes Wort'], None)
    assert drawn.shape == (20, 30, 3)


def test_text_files_of_yolo() -> None:
    found = instances([[10, 20, 30, 60]], [0.75])
    assert yolo_lines(found, (100, 200), scores=False) == ['0 0.100000 0.400000 0.100000 0.400000']
    assert yolo_lines(found, (100, 200), scores=True) == ['0 0.100000 0.400000 0.100000 0.400000 0.750000']


def test_crops_and_text_files(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path, ['../a b'], drawn=False, text=True, crops=True)
    outputs.add('one', np.zeros((50, 50, 3), np.uint8), instances([[0, 0, 10.4, 20], [5, 5, 5, 9]], [0.9, 0.8]))
    outputs.add('none', np.zeros((50, 50, 3), np.uint8), instances([], []))
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*') if path.is_file())
    assert written == ['crops/_a_b/one_1.jpg', 'labels/none.txt', 'labels/one.txt']
    assert (tmp_path / 'labels/none.txt').read_text() == ''
    assert outputs.summary() == '2 object(s): 2 ../a b'


def test_a_folder_without_permission_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('os.access', lambda *_: False)  # the administrator, as whom tests may run, has it everywhere
    with pytest.raises(InputError, match='no permission to write'):
        Outputs(tmp_path, ['a'])


def test_a_log_of_frames_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), FrameLog(tmp_path / 'a.json', {'file': 'a'}) as log:
        log.add(0.0, {'scores': [1.0]})
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
