"""A small instance-segmentation set for tests: polygons of known shapes on real photographs, in COCO's format."""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from mmmamba.datasets.composed import load_photographs

CLASSES = ('triangle', 'square', 'star')
_POINTS = 5
_STAR = [(np.pi * i / _POINTS, 1.0 if i % 2 == 0 else 0.45) for i in range(2 * _POINTS)]
# The corners of each class: angle in radians, distance from the centre in radii.
_CORNERS = ([(2 * np.pi * i / 3, 1.0) for i in range(3)], [(np.pi * i / 2, 1.0) for i in range(4)], _STAR)


def compose_instances(root: Path, images: int = 4, size: tuple[int, int] = (160, 128), most: int = 3,
                      split: str = 'train', seed: int = 0) -> Path:
    """Writes ``root/SPLIT/*.png`` and ``root/annotations/SPLIT.json``: filled polygons on photographs.

    Instances stand side by side and wholly inside, so that each mask is exactly its polygon.

    Args:
        root: The folder.
        images: Number of images.
        size: Their width and height, in pixels.
        most: Largest number of instances in an image; the least is 1.
        split: Name of the image folder and of the annotation file.
        seed: What to draw.

    Returns:
        ``root``.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    photographs = list(load_photographs('train').values())
    (root / split).mkdir(parents=True)
    (root / 'annotations').mkdir(exist_ok=True)
    content: dict[str, list[dict]] = {
        'images': [],
        'annotations': [],
        'categories': [{'id': i, 'name': name} for i, name in enumerate(CLASSES, start=1)],
    }
    for image_id in range(1, images + 1):
        photograph = photographs[(image_id - 1) % len(photographs)]
        canvas = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
        count = int(rng.integers(1, most, endpoint=True))
        for slot in range(count):
            left, right = width * slot / count, width * (slot + 1) / count
            label = int(rng.integers(len(CLASSES)))
            polygon = _polygon(label, left, right, height, rng)
            cv2.fillPoly(canvas, [polygon.round().astype(np.int32)], rng.integers(0, 255, 3).tolist())
            (x1, y1), (x2, y2) = polygon.min(axis=0), polygon.max(axis=0)
            content['annotations'].append({
                'id': len(content['annotations']) + 1,
                'image_id': image_id,
                'category_id': label + 1,
                'segmentation': [polygon.ravel().tolist()],
                'bbox': [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                'area': float(cv2.contourArea(polygon)),
                'iscrowd': 0,
            })
        name = f'{image_id:06d}.png'
        cv2.imwrite(str(root / split / name), canvas)
        content['images'].append({'id': image_id, 'file_name': name, 'width': width, 'height': height})
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))
    return root


def _polygon(label: int, left: float, right: float, height: float, rng: np.random.Generator) -> np.ndarray:
    """Draws a turned polygon of a class inside the strip from ``left`` to ``right``: (P, 2) float32 of x, y."""
    largest = min(right - left, height) / 2 - 1
    radius = rng.uniform(0.6, 1.0) * largest
    centre = rng.uniform((left + radius, radius), (right - radius, height - radius))
    angles, distances = np.array(_CORNERS[label]).T
    turned = angles + rng.uniform(0, 2 * np.pi)
    offsets = radius * distances[:, None] * np.column_stack([np.cos(turned), np.sin(turned)])
    return (centre + offsets).astype(np.float32)
