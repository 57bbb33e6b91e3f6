"""Boxes belong to the picture that they were drawn on: the annotation file and the decoded image agree on its size."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from mmmamba.datasets.transforms.load_checked_image import LoadCheckedImage, UnreadableImageError

_AS_STORED = 'color_ignore_orientation'


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
