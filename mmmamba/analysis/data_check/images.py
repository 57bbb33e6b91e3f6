"""Every image file of a data set read once, by several threads, as training reads it."""
from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from mmmamba.datasets.formats.image_sizes import read_size
from mmmamba.datasets.transforms.load_checked_image import LoadCheckedImage, UnreadableImageError

THUMBNAIL = 32
_HASH = (9, 8)  # columns, rows
_PNG_START, _PNG_DEPTH = b'\x89PNG\r\n\x1a\n', 24
_MODES = {'1': 'grey', 'L': 'grey', 'CMYK': 'CMYK', 'LA': 'transparency', 'RGBA': 'transparency',
          'PA': 'transparency', 'I;16': '16 bits', 'I;16B': '16 bits', 'I;16L': '16 bits', 'I': '16 bits'}


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image file.

    Args:
        size: Width and height as training sees them; None for an image that cannot be read.
        fault: Why it cannot be read, in a line; empty if it can.
        oddity: ``'grey'``, ``'transparency'``, ``'CMYK'`` or ``'16 bits'``; empty for the usual 8 bits of colour.
        digest: Of the file's content; empty where it could not be read, or was not.
        hash: 64 bits of brightness rising or falling from left to right, (64,) bool; None where it was not decoded.
        thumbnail: Grey, (32, 32) uint8; None where it was not decoded.
    """
    size: tuple[int, int] | None
    fault: str = ''
    oddity: str = ''
    digest: bytes = b''
    hash: np.ndarray | None = None
    thumbnail: np.ndarray | None = None


def read_images(paths: Sequence[Path], quick: bool) -> Mapping[Path, ImageFacts]:
    """Reads image files, with a progress bar.

    Args:
        paths: The files; one that is named twice is read once.
        quick: Read headers alone. Damage after them is not seen, and of pictures that are alike only files that are
            equal byte by byte.

    Returns:
        Path → what it holds.
    """
    paths = list(dict.fromkeys(paths))
    if quick:
        sizes: dict[int, int] = {}
        for path in paths:
            size = _file_size(path)
            sizes[size] = sizes.get(size, 0) + 1

        def look(path: Path) -> ImageFacts:
            return _read_header(path, with_digest=sizes[_file_size(path)] > 1)
    else:
        load = LoadCheckedImage()

        def look(path: Path) -> ImageFacts:
            return _decode(path, load)

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # images are read side by side, and OpenCV's own threads would wait for each other
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        return dict(zip(paths, tqdm(pool.map(look, paths), total=len(paths), unit='image', desc='reading',
                                    leave=False, disable=None)))
    finally:
        pool.shutdown(cancel_futures=True)  # else Ctrl-C would wait for all images
        cv2.setNumThreads(threads)


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read_header(path: Path, with_digest: bool) -> ImageFacts:
    size, reason = read_size(path), 'is no image'
    try:
        if size is not None:
            return ImageFacts(size, oddity=_oddity(path), digest=_digest(path.read_bytes()) if with_digest else b'')
        path.open('rb').close()
    except OSError as error:
        reason = error.strerror or str(error)
    return ImageFacts(None, f'image {path} cannot be read: {reason}')


def _decode(path: Path, load: LoadCheckedImage) -> ImageFacts:
    try:
        image = load({'img_path': str(path)})['img']
    except UnreadableImageError as error:
        return ImageFacts(None, str(error))
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    small = cv2.resize(grey, _HASH, interpolation=cv2.INTER_AREA).astype(np.int16)
    return ImageFacts(image.shape[1::-1], '', _oddity(path), _digest(path.read_bytes()),
                      (small[:, 1:] > small[:, :-1]).ravel(), grey)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _oddity(path: Path) -> str:
    mode = ''
    with contextlib.suppress(Exception), Image.open(path) as header:  # OpenCV may know formats that Pillow does not
        mode = header.mode
    with path.open('rb') as file:
        start = file.read(_PNG_DEPTH + 1)
    if start.startswith(_PNG_START) and start[_PNG_DEPTH:] == b'\x10':  # Pillow reads colours of 16 bits as 8
        return '16 bits'
    return _MODES.get(mode, '')
