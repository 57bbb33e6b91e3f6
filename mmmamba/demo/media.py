"""Pictures in and drawn pictures out: images, folders of images, and videos."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from mmdet.utils.misc import IMG_EXTENSIONS

from mmmamba.errors import InputError


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
            while True:
                ok, frame = capture.read()
                if not ok:
                    return
                yield frame
        finally:
            capture.release()


class VideoFile:
    """Writes frames, BGR (H, W, 3) uint8, to an mp4; use it in a ``with`` statement.

    Args:
        path: The file to write.
        like: The video whose size and frame rate it takes.
    """

    def __init__(self, path: Path, like: Video) -> None:
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), like.fps, (like.width, like.height))
        if not self._writer.isOpened():
            raise InputError(f'{path}: cannot be written as a video')

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.release()

    def write(self, frame: np.ndarray) -> None:
        self._writer.write(frame)


def find_images(source: Path) -> list[Path]:
    """Lists the image files that ``source`` stands for: those in a folder, itself, or none where it is a video.

    Raises:
        InputError: If it does not exist, or is a folder without images.
    """
    if source.is_dir():
        images = sorted(path for path in source.iterdir() if path.suffix.lower() in IMG_EXTENSIONS)
        if not images:
            raise InputError(f"{source}: no image in this folder (looked for {', '.join(IMG_EXTENSIONS)})")
        return images
    if not source.is_file():
        raise InputError(f'{source}: no such file or folder')
    return [source] if source.suffix.lower() in IMG_EXTENSIONS else []
