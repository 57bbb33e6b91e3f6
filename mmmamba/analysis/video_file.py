"""Drawn videos: H.264, which every browser plays, if PyAV is installed, else MPEG-4 Part 2, which none does."""
from __future__ import annotations

import errno
import os
from contextlib import suppress
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from mmmamba.analysis.media import FrameFormat
from mmmamba.errors import InputError

_LARGEST_PART = 1001  # of a frame rate as a fraction: 30000 / 1001 is television's


class VideoFile:
    """Writes frames, BGR (H, W, 3) uint8, to an mp4 of a constant frame rate; use it in a ``with`` statement.

    The file appears once it is complete. Where something is raised before that, none does. A side of an odd number of
    pixels, which H.264 does not have, gets one more, a copy of the last.

    Args:
        path: The file to write.
        like: The video whose size and frame rate it takes.

    Raises:
        InputError: It cannot be written, or not completely, or a frame has another size.
    """

    def __init__(self, path: Path, like: FrameFormat) -> None:
        self.path, self._shape, self._fps = path, (like.height, like.width), like.fps
        self._partial = path.with_name(f'.partial{path.suffix}')
        self._padding = (like.height % 2, like.width % 2)
        self._written = 0
        size = (like.width + self._padding[1], like.height + self._padding[0])
        try:
            self._encoder = (_H264 if has_h264() else _Mpeg4)(self._partial, size, like.fps)
        except OSError as error:
            self._discard()
            raise InputError(f'{path}: cannot be written as a video: {error.strerror or error}') from error

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with suppress(OSError):  # of a full disk; the check below finds it
                self._encoder.close()
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def write(self, frame: np.ndarray, time: float | None = None) -> None:
        """Adds a frame.

        Where the times of frames are not those of the frame rate (videos of telephones, cameras that wait for the
        detector), a frame is written more than once, or not at all, so that the video keeps its speed.

        Args:
            frame: The picture.
            time: Seconds since the first frame; None for as many as the frame rate has it.
        """
        if frame.shape[:2] != self._shape:
            (height, width), (first_height, first_width) = frame.shape[:2], self._shape
            raise InputError(f'{self.path}: frame {self._written} is {width}x{height}, the first one '
                             f'{first_width}x{first_height}')
        if any(self._padding):
            frame = cv2.copyMakeBorder(frame, 0, self._padding[0], 0, self._padding[1], cv2.BORDER_REPLICATE)
        until = self._written if time is None else round(time * self._fps)
        while self._written <= until:
            try:
                self._encoder.write(frame)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise self._incomplete() from error
                raise
            self._written += 1

    def _finish(self) -> None:
        # OpenCV says nothing when a disk is full.
        capture = cv2.VideoCapture(str(self._partial))
        complete = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == self._written
        capture.release()
        if not complete:
            raise self._incomplete()
        os.replace(self._partial, self.path)

    def _incomplete(self) -> InputError:
        return InputError(f'{self.path}: cannot be written completely; is the disk full?')

    def _discard(self) -> None:
        with suppress(OSError):
            self._partial.unlink()


def has_h264() -> bool:
    """Tells whether PyAV is installed, with an encoder for H.264."""
    if find_spec('av') is None:
        return False
    import av

    return 'libx264' in av.codecs_available


class _H264:
    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        import av

        self._to_frame = av.VideoFrame.from_ndarray
        # The index of the file in front, so that a browser plays it while it comes.
        self._container = av.open(str(path), 'w', format='mp4', options={'movflags': 'faststart'})
        self._stream = self._container.add_stream('libx264', rate=Fraction(fps).limit_denominator(_LARGEST_PART),
                                                  options={'preset': 'veryfast', 'crf': '23'})
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = 'yuv420p'

    def write(self, frame: np.ndarray) -> None:
        picture = self._to_frame(np.ascontiguousarray(frame), format='bgr24')
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        try:
            self._container.mux(self._stream.encode())
        finally:
            self._container.close()


class _Mpeg4:
    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), fps, size)
        if not self._writer.isOpened():
            raise OSError('OpenCV cannot open it')

    def write(self, frame: np.ndarray) -> None:
        self._writer.write(frame)

    def close(self) -> None:
        self._writer.release()
