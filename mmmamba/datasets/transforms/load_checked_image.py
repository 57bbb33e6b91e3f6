"""Image loading that notices damaged files."""
from __future__ import annotations

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine import fileio

from mmmamba.errors import InputError

_JPEG_START, _JPEG_SCAN, _JPEG_END = b'\xff\xd8', 0xDA, b'\xff\xd9'
_PNG_START, _PNG_END = b'\x89PNG', b'IEND\xaeB`\x82'


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
        results['img'] = image
        results['img_shape'] = image.shape[:2]
        results['ori_shape'] = image.shape[:2]
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
