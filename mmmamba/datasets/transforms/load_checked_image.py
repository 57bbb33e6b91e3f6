"""Image loading that notices damaged files, and pictures other than those that were annotated."""
from __future__ import annotations

from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine import fileio

from mmmamba.errors import InputError

_JPEG_START, _JPEG_SCAN, _JPEG_END = b'\xff\xd8', 0xDA, b'\xff\xd9'
_PNG_START, _PNG_END = b'\x89PNG', b'IEND\xaeB`\x82'
_AS_STORED = 'color_ignore_orientation'


class UnreadableImageError(InputError):
    """An image file is missing, damaged or no image; training can go on with another one."""


@TRANSFORMS.register_module()
class LoadCheckedImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` (same arguments), but what is damaged raises :class:`UnreadableImageError`.

    Depending on its version and on the damage, OpenCV fills the missing rest of an image with grey and reports
    nothing. The check costs a look at the last bytes, and a search only in files that have something after their end,
    which is legal. Damage inside a file that has its end is not found.
    """

    def transform(self, results: dict) -> dict:
        """Reads ``results['img_path']`` into ``img`` (H, W, 3), ``img_shape`` and ``ori_shape``."""
        path = results['img_path']
        try:
            content = fileio.get(path, backend_args=self.backend_args)
        except OSError as error:
            raise UnreadableImageError(f'image {path} cannot be read: {error.strerror or error}') from error
        image = self._decode(content, path)
        if self.to_float32:
            image = image.astype(np.float32)
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def _decode(self, content: bytes, path: str) -> np.ndarray:
        if is_truncated(content):
            raise UnreadableImageError(f'image {path} is truncated ({len(content)} bytes)')
        try:
            image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
        except (cv2.error, OSError) as error:
            raise UnreadableImageError(f'image {path} cannot be decoded') from error
        if image is None:
            raise UnreadableImageError(f'image {path} is no image, or of an unknown format ({len(content)} bytes)')
        return image


def is_truncated(content: bytes) -> bool:
    """Tells whether a JPEG or PNG file ends before its picture does; other formats always count as complete.

    Args:
        content: The file's bytes.
    """
    if content.startswith(_JPEG_START):
        return not content.endswith(_JPEG_END) and content.find(_JPEG_END, _scan_position(content)) < 0
    if content.startswith(_PNG_START):
        return not content.endswith(_PNG_END) and _PNG_END not in content
    return False


def _scan_position(content: bytes) -> int:
    """Returns where a JPEG's picture begins: after segments that may hold a thumbnail, with an end of its own."""
    position = len(_JPEG_START)
    while content[position:position + 1] == b'\xff' and content[position + 1:position + 2] != bytes([_JPEG_SCAN]):
        position += 2 + int.from_bytes(content[position + 2:position + 4], 'big')
    return position


def check_frame(shape: tuple[int, int], entry: dict, path: str, annotations: str) -> None:
    """Checks that a decoded image has the size that its annotations were made for.

    Args:
        shape: Height and width of the decoded image.
        entry: With the ``height`` and ``width`` of the annotation file.
        path: Of the image.
        annotations: The annotation file.

    Raises:
        UnreadableImageError: It has another one.
    """
    height, width = shape
    expected = (entry['height'], entry['width'])
    if (height, width) == expected:
        return
    if (width, height) == expected:
        remedy = ('EXIF data may turn a picture whose boxes were drawn as it is stored; then load images with '
                  f"color_type='{_AS_STORED}', else correct the file")
    else:
        remedy = 'correct the file, or put the image back that was annotated'
    raise UnreadableImageError(f'image {path} has {width} x {height} pixels, but {annotations} has boxes for '
                               f'{expected[1]:g} x {expected[0]:g}: {remedy}')


def load_annotated_image(entry: dict, folder: Path) -> np.ndarray:
    """Loads an image as it was annotated: turned by its EXIF data, or as it is stored.

    Args:
        entry: Of the annotation file's ``images``.
        folder: Of the images.

    Returns:
        (height, width, 3), RGB.

    Raises:
        UnreadableImageError: The image cannot be read, or has another size both ways.
    """
    results = {'img_path': str(folder / entry['file_name'])}
    image = LoadCheckedImage()(results)['img']
    if image.shape[:2] == (entry['width'], entry['height']):
        image = LoadCheckedImage(color_type=_AS_STORED)(results)['img']
    check_frame(image.shape[:2], entry, results['img_path'], 'the annotation file')
    return image[..., ::-1]
