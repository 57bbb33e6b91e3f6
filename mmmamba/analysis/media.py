"""Frames of video files, cameras and streams, and pictures that are written."""
from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from mmmamba.errors import InputError
from mmmamba.files import write_atomically

_USUAL_RATE = 25.0
_RATES = (1.0, 240.0)  # frames a second that are believed; streams announce clocks of 90000
_FIRST_FRAME_SECONDS, _LAST_FRAME_SECONDS = 30.0, 2.0
_POLL_SECONDS = 0.1


class Frame(NamedTuple):
    """A frame of a video: seconds since the first one, and BGR (H, W, 3) uint8."""
    time: float
    image: np.ndarray


class FrameFormat(Protocol):
    """Size in pixels and frames a second."""
    width: int
    height: int
    fps: float


class Video:
    """The frames of a video file, in order and upright.

    Args:
        path: The file.

    Raises:
        InputError: If it cannot be read as a video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        capture = _quietly_opened(str(path))
        ok, first = capture.read()
        self.fps = _frame_rate(capture)
        self.frame_count = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        capture.release()
        if not ok:
            raise InputError(f'{path}: not readable as an image or a video')
        self.height, self.width = first.shape[:2]

    def __iter__(self) -> Iterator[Frame]:
        capture = cv2.VideoCapture(str(self.path))
        start, now = None, -1 / self.fps
        try:
            while capture.grab():
                stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                start = stamp if start is None else start
                # Without stamps (some of OpenCV's readers), the announced rate counts.
                now = stamp - start if stamp - start > now else now + 1 / self.fps
                ok, image = capture.retrieve()
                if ok:
                    yield Frame(now, image)
        finally:
            capture.release()


class LiveVideo:
    """The frames of a camera or a stream, each the latest at its time: those that come meanwhile are passed over.

    Use it in a ``with`` statement.

    Args:
        place: Number of a camera, or address of a stream.
        name: What messages call it.

    Raises:
        InputError: If no frame comes.
    """

    def __init__(self, place: int | str, name: str) -> None:
        self._capture = _quietly_opened(place)
        self._new, self._ended = threading.Condition(), False
        self._latest: Frame | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        with self._new:
            self._new.wait_for(lambda: self._latest or self._ended, _FIRST_FRAME_SECONDS)
            if self._latest is None:
                raise InputError(f'{name}: no picture comes from it')
            self.height, self.width = self._latest.image.shape[:2]
        self.fps = _frame_rate(self._capture)

    def __enter__(self) -> LiveVideo:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join(_LAST_FRAME_SECONDS)
        if not self._thread.is_alive():  # else OpenCV waits for a stream that has stalled, and ends with the process
            self._capture.release()

    def frames(self, stopped: threading.Event) -> Iterator[Frame]:
        """Yields frames until there are no more, or ``stopped`` is set."""
        while not stopped.is_set():
            with self._new:
                self._new.wait_for(lambda: self._latest or self._ended, _POLL_SECONDS)
                frame, self._latest = self._latest, None
            if frame is not None:
                yield frame
            elif self._ended:
                return

    def _read(self) -> None:
        start = None
        while not self._ended:
            ok, image = self._capture.read()
            start = time.monotonic() if start is None else start
            with self._new:
                if ok:
                    self._latest = Frame(time.monotonic() - start, image)
                else:
                    self._ended = True
                self._new.notify()


@contextmanager
def stopped_by_signal() -> Iterator[threading.Event]:
    """Gives an event that Ctrl-C, or an order to end the process, sets once; the next such signal acts as before."""
    stopped = threading.Event()
    before: dict[int, Any] = {}

    def stop(number: int, _: object) -> None:
        stopped.set()
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():  # no other can handle signals
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for handled, handler in before.items():
            signal.signal(handled, handler)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a BGR (H, W, 3) uint8 picture in the format of the path's ending.

    Raises:
        InputError: OpenCV does not write this format, or the disk is full.
        OSError: The file cannot be written.
    """
    try:
        ok, content = cv2.imencode(path.suffix, picture)
    except cv2.error:
        ok = False
    if not ok:
        raise InputError(f'OpenCV does not write a colour picture of {picture.shape[1]}x{picture.shape[0]} as '
                         f'{path.suffix}')
    write_atomically(path, content.tobytes())


def _quietly_opened(place: int | str) -> cv2.VideoCapture:
    """Opens a video; of one that cannot be opened, OpenCV would print what each of its readers says."""
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')  # FFmpeg's "quiet"
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(place)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _frame_rate(capture: cv2.VideoCapture) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if _RATES[0] <= rate <= _RATES[1] else _USUAL_RATE
