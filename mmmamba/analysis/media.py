"""Pictures in and drawn pictures out: images, folders of images, and videos."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from mmdet.utils.misc import IMG_EXTENSIONS

from mmmamba.errors import InputError
from mmmamba.files import write_atomically


class Video:
    """The frames of a video file, BGR (H, W, 3) uint8, in order.

    Args:
        path: The file.

    Raises:
        InputError: If it cannot be read as a video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        capture = cv2.VideoCapture(str(path))
        ok, first = capture.read()
        self.fps = capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.frame_count = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        capture.release()
        if not ok:
            raise InputError(f'{path}: not readable as an image or a video')
        self.height, self.width = first.shape[:2]

    def __iter__(self) -> Iterator[np.ndarray]:
        capture = cv2.VideoCapture(str(self.path))
        try:
            while capture.grab():
                ok, frame = capture.retrieve()
                if ok:
                    yield frame
        finally:
            capture.release()


class VideoFile:
    """Writes frames, BGR (H, W, 3) uint8, to an mp4; use it in a ``with`` statement.

    The file appears once it is complete. Where something is raised before that, none does.

    Args:
        path: The file to write.
        like: The video whose size and frame rate it takes.

    Raises:
        InputError: It cannot be written, or not completely, or a frame has another size.
    """

    def __init__(self, path: Path, like: Video) -> None:
        self.path, self._shape, self._written = path, (like.height, like.width), 0
        self._partial = path.with_name(f'.partial{path.suffix}')
        self._writer = cv2.VideoWriter(str(self._partial), cv2.VideoWriter.fourcc(*'mp4v'), like.fps,
                                       (like.width, like.height))
        if not self._writer.isOpened():
            self._discard()
            raise InputError(f'{path}: cannot be written as a video')

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.release()
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def write(self, frame: np.ndarray) -> None:
        """Adds a frame."""
        if frame.shape[:2] != self._shape:
            (height, width), (first_height, first_width) = frame.shape[:2], self._shape
            raise InputError(f'{self.path}: frame {self._written} is {width}x{height}, the first one '
                             f'{first_width}x{first_height}')
        self._writer.write(frame)
        self._written += 1

    def _finish(self) -> None:
        # OpenCV says nothing when a disk is full.
        capture = cv2.VideoCapture(str(self._partial))
        complete = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == self._written
        capture.release()
        if not complete:
            raise InputError(f'{self.path}: cannot be written completely; is the disk full?')
        os.replace(self._partial, self.path)

    def _discard(self) -> None:
        with suppress(OSError):
            self._partial.unlink()


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


def find_images(source: Path) -> tuple[list[Path], list[Path]]:
    """Lists the image files of ``source``: those in a folder, itself, or none if it is a video.

    Returns:
        The images, and what else is in the folder: files of other endings, and folders.

    Raises:
        InputError: If it does not exist, or is a folder without images.
    """
    if source.is_dir():
        images: list[Path] = []
        others: list[Path] = []
        for path in sorted(source.iterdir()):
            (images if path.suffix.lower() in IMG_EXTENSIONS and not path.is_dir() else others).append(path)
        if not images:
            raise InputError(f"{source}: no image in this folder (looked for {', '.join(IMG_EXTENSIONS)})")
        return images, others
    if not source.is_file():
        raise InputError(f'{source}: no such file or folder')
    return ([source] if source.suffix.lower() in IMG_EXTENSIONS else []), []
