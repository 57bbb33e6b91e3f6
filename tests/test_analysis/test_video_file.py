"""Videos that are written and read: format, times, odd sides, and cameras that are stopped."""
from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmmamba.analysis import video_file
from mmmamba.analysis.media import Frame, LiveVideo, Video, stopped_by_signal
from mmmamba.analysis.video_file import VideoFile, has_h264
from mmmamba.errors import InputError


class Like:
    fps, width, height = 10.0, 33, 25


def grey(value: int) -> np.ndarray:
    return np.full((Like.height, Like.width, 3), value, np.uint8)


@pytest.fixture(params=['h264', 'mpeg4'])
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == 'h264':
        pytest.importorskip('av')
    monkeypatch.setattr(video_file, 'has_h264', lambda: request.param == 'h264')
    return request.param


def test_a_video_has_its_codec_and_even_sides(tmp_path: Path, codec: str) -> None:
    with VideoFile(tmp_path / 'a.mp4', like=Like) as out:
        for value in (0, 100, 200):
            out.write(grey(value))
    video = Video(tmp_path / 'a.mp4')
    assert (video.width, video.height, video.fps, video.frame_count) == (34, 26, 10.0, 3)
    frames = list(video)
    assert [round(frame.time, 3) for frame in frames] == [0.0, 0.1, 0.2]
    assert all(abs(int(frame.image[12, 33, 0]) - value) < 8 for frame, value in zip(frames, (0, 100, 200)))
    content = (tmp_path / 'a.mp4').read_bytes()
    assert (b'avc1' in content) == (codec == 'h264')
    if codec == 'h264':  # plays while it is still coming
        assert content.index(b'moov') < content.index(b'mdat')


def test_a_video_keeps_its_speed(tmp_path: Path, codec: str) -> None:
    """Frames at other times than those of the frame rate are repeated or left out."""
    with VideoFile(tmp_path / 'a.mp4', like=Like) as out:
        for time, value in ((0.0, 0), (0.1, 60), (0.12, 90), (0.5, 120), (0.6, 200)):
            out.write(grey(value), time)
    seen = [int(frame.image[5, 5, 0]) for frame in Video(tmp_path / 'a.mp4')]
    assert np.abs(np.array(seen) - [0, 60, 120, 120, 120, 120, 200]).max() < 8


def test_a_video_on_a_full_disk_is_one_line(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, 'No space left on device')

    with pytest.raises(InputError, match='is the disk full'), VideoFile(tmp_path / 'a.mp4', like=Like) as out:
        monkeypatch.setattr(out._encoder, 'write', full)
        out.write(grey(0))
    assert not list(tmp_path.iterdir())


def test_without_av_there_is_no_h264(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_file, 'find_spec', lambda name: None)
    assert not has_h264()


class Camera:
    """A camera of so many frames, of which OpenCV says that it makes 90000 a second."""
    frames = 5
    interrupts = False

    def __init__(self, place: object) -> None:
        self.read_so_far = 0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.read_so_far += 1
        if self.interrupts and self.read_so_far > 3:
            os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(0.01)
        return (True, grey(self.read_so_far)) if self.read_so_far <= self.frames else (False, None)

    def get(self, what: int) -> float:
        return 90000.0

    def release(self) -> None:
        pass


def test_a_camera_gives_its_latest_frames_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, 'VideoCapture', Camera)
    with LiveVideo(0, 'camera 0') as video:
        assert (video.width, video.height, video.fps) == (33, 25, 25.0)
        frames: list[Frame] = []
        for frame in video.frames(threading.Event()):
            frames.append(frame)
            threading.Event().wait(0.025)  # slower than the camera
    values = [int(frame.image[0, 0, 0]) for frame in frames]
    assert values == sorted(set(values)) and values[-1] == 5 and len(values) < 5
    assert [frame.time for frame in frames] == sorted(frame.time for frame in frames)


def test_a_camera_without_pictures_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, 'VideoCapture', Camera)
    monkeypatch.setattr(Camera, 'frames', 0)
    with pytest.raises(InputError, match='camera 0: no picture'):
        LiveVideo(0, 'camera 0')


def test_ctrl_c_ends_a_camera_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, 'VideoCapture', Camera)
    monkeypatch.setattr(Camera, 'frames', 10**6)
    monkeypatch.setattr(Camera, 'interrupts', True)
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *_: None)  # a second signal may come before the camera has ended
    try:
        with stopped_by_signal() as stopped, LiveVideo(0, 'camera 0') as video:
            assert len(list(video.frames(stopped))) >= 1
        assert stopped.is_set()
    finally:
        signal.signal(signal.SIGINT, before)
