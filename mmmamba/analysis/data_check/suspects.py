"""Pictures of what a data check found, small and with boxes, as SVG that a page embeds."""
from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmmamba.analysis.data_check.boxes import by_image
from mmmamba.analysis.data_check.check import CheckedData
from mmmamba.analysis.data_check.findings import Finding, shown
from mmmamba.datasets.transforms.load_checked_image import LoadCheckedImage, UnreadableImageError

SIDE = 420  # pixels, of a picture's longer side
_ZOOM = 8  # times: a suspect that is smaller in the picture is shown with its surroundings alone
_LEAST_CROP = 40  # pixels
_QUALITY = 78
_MOST_BOXES = 300
_MOST_ELONGATED = 50  # times its width: there is nothing to see in a thread
_SUSPECT, _OTHER = '#ff453a', '#ffd60a'


class Suspects:
    """Draws findings.

    Args:
        checked: The data set.
    """

    def __init__(self, checked: CheckedData) -> None:
        self._folders = checked.folders
        self._images = {name: {image['file_name']: image for image in content['images']}
                        for name, content in checked.contents.items()}
        self._objects = {name: by_image(content) for name, content in checked.contents.items()}
        self._names = {name: {item['id']: item['name'] for item in content['categories']}
                       for name, content in checked.contents.items()}
        self._load = LoadCheckedImage()

    def draw(self, finding: Finding) -> list[str]:
        """Returns the finding's pictures as SVG elements: none, one, or two where it is about a pair."""
        places = [(finding.split, finding.file), *([finding.other] if finding.other else [])]
        drawn = (self._draw_one(split, file, finding.annotations) for split, file in places if file)
        return [picture for picture in drawn if picture]

    def _draw_one(self, split: str, file: str, suspects: Sequence) -> str:
        path = self._path(split, file)
        try:
            image = self._load({'img_path': str(path)})['img'] if path else None
        except UnreadableImageError:
            image = None
        if image is None or max(image.shape[:2]) > _MOST_ELONGATED * min(image.shape[:2]):
            return ''
        entry = self._images.get(split, {}).get(file)
        boxes = []
        for item in self._objects[split][entry['id']] if entry else ():
            name = shown(self._names[split][item['category_id']])
            boxes.append((item['bbox'], name, item['id'] in suspects))
        boxes.sort(key=lambda box: box[2])  # suspects above the others
        return _svg(image, boxes[-_MOST_BOXES:], f'{split}: {shown(file)}' if split else shown(file))

    def _path(self, split: str, file: str) -> Path | None:
        folders = [self._folders[split]] if split in self._folders else self._folders.values()
        return next((folder / file for folder in folders if os.path.isfile(folder / file)), None)


def _svg(image: np.ndarray, boxes: Sequence[tuple[Sequence[float], str, bool]], title: str) -> str:
    """Returns a picture with boxes; a small suspect is shown enlarged.

    Args:
        image: (height, width, 3), BGR.
        boxes: Left, top, width and height in pixels; the class; whether it is a suspect.
        title: Plain text, for those who cannot see the picture.
    """
    left, top, right, bottom = _window(image.shape[:2], [box for box, _, suspect in boxes if suspect])
    part = image[max(top, 0):bottom, max(left, 0):right]
    height, width = part.shape[:2]
    scale = SIDE / max(height, width)
    smooth = '' if scale < 4 else ' style="image-rendering: pixelated"'
    if scale < 1:
        part = cv2.resize(part, (max(round(width * scale), 1), max(round(height * scale), 1)),
                          interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode('.jpg', part, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    text = base64.b64encode(jpeg.tobytes()).decode()
    shapes = ''.join(_rectangle(box, name, suspect) for box, name, suspect in boxes)
    # The inner one cuts boxes at the edge of what is shown; the outer one fits into any frame.
    size = f'{right - left} {bottom - top}'
    return (f'<svg viewBox="0 0 {size}" role="img"><title>{html.escape(title)}</title>'
            f'<svg width="{right - left}" height="{bottom - top}" viewBox="{left} {top} {size}">'
            f'<image x="{max(left, 0)}" y="{max(top, 0)}" width="{width}" height="{height}"{smooth} '
            f'preserveAspectRatio="none" href="data:image/jpeg;base64,{text}"/>{shapes}</svg></svg>')


def _rectangle(box: Sequence[float], name: str, suspect: bool) -> str:
    """Returns a box with a dark edge around its bright one, so that it is seen on any ground."""
    x, y, width, height = (f'{value:.1f}' for value in (*box[:2], max(box[2], 1), max(box[3], 1)))
    strength = 3 if suspect else 1.5
    frame = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" vector-effect="non-scaling-stroke"'
    return (f'{frame} stroke="#000" stroke-opacity=".55" stroke-width="{strength + 1.6}"/>'
            f'{frame} stroke="{_SUSPECT if suspect else _OTHER}" stroke-width="{strength}">'
            f'<title>{html.escape(name)}</title></rect>')


def _window(shape: tuple[int, int], suspects: Sequence[Sequence[float]]) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom of what is shown.

    That is the picture; with what is around it where a suspect leaves it, up to its own size on each side; or only the
    surroundings of suspects that are small in it.
    """
    height, width = shape
    if not suspects:
        return 0, 0, width, height
    boxes = np.array(suspects, float)
    low, high = boxes[:, :2].min(axis=0), (boxes[:, :2] + np.maximum(boxes[:, 2:], 0)).max(axis=0)
    size = np.array([width, height])
    if (low < 0).any() or (high > size).any():
        margin = 0.03 * max(width, height)
        start = np.clip(np.minimum(low - margin, 0), -size, 0).astype(int)
        end = np.clip(np.maximum(high + margin, size), size, 2 * size).astype(int)
    else:
        side = max(_ZOOM / 2 * max(high - low), _LEAST_CROP)
        if max(high - low) * _ZOOM > max(size) or side >= max(size):
            return 0, 0, width, height
        start = np.clip((low + high - side) / 2, 0, np.maximum(size - side, 0)).astype(int)
        end = np.minimum(start + int(side), size)
    return int(start[0]), int(start[1]), int(end[0]), int(end[1])
