"""Image loading that notices damaged files."""
from __future__ import annotations

import io

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine import fileio
from PIL import Image

from mmmamba.errors import InputError

# The last bytes of a complete file, by its first ones.
_ENDINGS = {b'\xff\xd8': b'\xff\xd9', b'\x89PNG': b'IEND\xaeB`\x82'}


class UnreadableImageError(InputError):
    """An image file is missing, damaged or no image; training can go on with another one."""


@TRANSFORMS.register_module()
class LoadCheckedImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` (same arguments), but what is damaged raises :class:`UnreadableImageError`.

    OpenCV fills the missing rest of a truncated JPEG with grey and reports nothing. The check costs a look at the last
    bytes; only files that do not end as they should are decoded a second time, by Pillow, because trailing bytes are
    legal. Damage inside a file of proper ending is not found.
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
    ending = next((ending for start, ending in _ENDINGS.items() if content.startswith(start)), None)
    if ending is None or content.endswith(ending):
        return False
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for damage, by format
        return True
    return False
