"""One small data set, written as COCO, YOLO or VOC, for tests."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

CLASSES = ('apple', 'kiwi', 'pear')
_COLOURS = ((40, 40, 220), (40, 220, 40), (220, 40, 40))


@dataclass(frozen=True)
class Picture:
    """An image and its objects.

    Args:
        name: Of the file.
        pixels: (H, W, 3), BGR.
        objects: Class number, and left, top, width, height in pixels.
    """
    name: str
    pixels: np.ndarray
    objects: Sequence[tuple[int, int, int, int, int]]


def compose_pictures(count: int = 6, seed: int = 0, prefix: str = '') -> list[Picture]:
    """Draws rectangles of three colours on noise, in images of several sizes; every fourth has no object."""
    rng = np.random.default_rng(seed)
    pictures = []
    for number in range(count):
        width, height = int(rng.integers(61, 97)), int(rng.integers(47, 83))
        pixels = rng.integers(90, 140, (height, width, 3), dtype=np.uint8)
        objects = []
        for _ in range(0 if number % 4 == 3 else int(rng.integers(1, 4))):
            label, w, h = (int(value) for value in rng.integers((0, 8, 8), (3, 30, 30)))
            x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            pixels[y:y + h, x:x + w] = _COLOURS[label]
            objects.append((label, x, y, w, h))
        pictures.append(Picture(f'{prefix}{number:03d}.png', pixels, tuple(dict.fromkeys(objects))))
    return pictures


def write_coco(root: Path, splits: Mapping[str, Sequence[Picture]]) -> Path:
    """Writes ``SPLIT/`` and ``annotations/SPLIT.json``, and returns ``root``."""
    (root / 'annotations').mkdir(parents=True)
    for split, pictures in splits.items():
        _write_images(root / split, pictures)
        (root / 'annotations' / f'{split}.json').write_text(json.dumps(coco_content(pictures)) + '\n')
    return root


def coco_content(pictures: Sequence[Picture]) -> dict:
    """Returns the content of a COCO file."""
    images: list[dict] = []
    annotations: list[dict] = []
    for picture in pictures:
        height, width = picture.pixels.shape[:2]
        images.append({'id': len(images) + 1, 'file_name': picture.name, 'width': width, 'height': height})
        for label, *box in picture.objects:
            annotations.append({'id': len(annotations) + 1, 'image_id': len(images), 'category_id': label + 1,
                                'bbox': box, 'area': box[2] * box[3], 'iscrowd': 0})
    categories = [{'id': label, 'name': name} for label, name in enumerate(CLASSES, start=1)]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def write_yolo(root: Path, splits: Mapping[str, Sequence[Picture]]) -> Path:
    """Writes ``images/SPLIT/``, ``labels/SPLIT/`` and ``data.yaml``, and returns ``root``."""
    for split, pictures in splits.items():
        _write_images(root / 'images' / split, pictures)
        (root / 'labels' / split).mkdir(parents=True)
        for picture in pictures:
            (root / 'labels' / split / f'{Path(picture.name).stem}.txt').write_text(yolo_text(picture))
    lines = [f'{split}: images/{split}' for split in splits]
    (root / 'data.yaml').write_text('\n'.join([*lines, f'names: [{", ".join(CLASSES)}]', '']))
    return root


def yolo_text(picture: Picture) -> str:
    """Returns a label file, with the six digits that most tools write."""
    height, width = picture.pixels.shape[:2]
    return ''.join(f'{label} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}\n'
                   for label, x, y, w, h in picture.objects)


def write_voc(root: Path, splits: Mapping[str, Sequence[Picture]]) -> Path:
    """Writes ``JPEGImages/``, ``Annotations/``, ``ImageSets/Main/SPLIT.txt`` and classes, and returns ``root``."""
    (root / 'Annotations').mkdir(parents=True)
    (root / 'ImageSets' / 'Main').mkdir(parents=True)
    (root / 'labels.txt').write_text('\n'.join(CLASSES))
    for split, pictures in splits.items():
        _write_images(root / 'JPEGImages', pictures)
        for picture in pictures:
            (root / 'Annotations' / f'{Path(picture.name).stem}.xml').write_text(voc_text(picture))
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text(
            '\n'.join(Path(picture.name).stem for picture in pictures))
    return root


def voc_text(picture: Picture, difficult: int = 0) -> str:
    """Returns an XML file from which mmdet's XMLDataset reads the same boxes: it subtracts 1 from each coordinate."""
    height, width = picture.pixels.shape[:2]
    objects = ''.join(
        f'<object><name>{CLASSES[label]}</name><difficult>{difficult}</difficult><bndbox><xmin>{x + 1}</xmin>'
        f'<ymin>{y + 1}</ymin><xmax>{x + w + 1}</xmax><ymax>{y + h + 1}</ymax></bndbox></object>\n'
        for label, x, y, w, h in picture.objects)
    return (f'<annotation><filename>{picture.name}</filename>\n<size><width>{width}</width><height>{height}</height>'
            f'<depth>3</depth></size>\n{objects}</annotation>\n')


def _write_images(folder: Path, pictures: Sequence[Picture]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        cv2.imwrite(str(folder / picture.name), picture.pixels)
