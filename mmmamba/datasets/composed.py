"""Composes a small detection data set: real handwriting on crops of real photographs, with exact boxes and masks.

Both ship inside two wheels, scikit-learn's and scikit-image's, which come with ``mmmamba[demo]``.
"""
from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from mmmamba.errors import InputError
from mmmamba.files import locked

CLASSES = tuple('0123456789')
DESCRIPTION = 'mmmamba demo: handwritten digits on photographs'
VERSION = 1
# Photographs of train and val are disjoint, and both have busy and calm ones, people-made and natural ones.
PHOTOGRAPHS = {
    'train': ('skimage/astronaut.png', 'skimage/brick.png', 'skimage/camera.png', 'skimage/chelsea.png',
              'skimage/grass.png', 'skimage/motorcycle_left.png', 'skimage/rocket.jpg', 'sklearn/china.jpg'),
    'val': ('skimage/coffee.png', 'skimage/gravel.png', 'sklearn/flower.jpg'),
}
VAL_EVERY = 5
FOLDERS = {'skimage': 'data', 'sklearn': 'datasets/images'}


class Digit(NamedTuple):
    """A scan: its number in scikit-learn's data set, its class, and ink of shape (8, 8) in [0, 1]."""
    number: int
    label: int
    ink: np.ndarray


def load_digits(split: str) -> list[Digit]:
    """Loads one split of scikit-learn's 1797 handwritten digits; every fifth is val."""
    _find_package('sklearn')
    from sklearn import datasets

    bunch = datasets.load_digits()
    return [Digit(number, int(label), (scan / 16).astype(np.float32))
            for number, (label, scan) in enumerate(zip(bunch.target, bunch.images))
            if (number % VAL_EVERY == 0) == (split == 'val')]


def load_photographs(split: str) -> dict[str, np.ndarray]:
    """Loads the photographs of one split, name → BGR (H, W, 3) uint8, in a fixed order."""
    photographs = {}
    for name in PHOTOGRAPHS[split]:
        package, file_name = name.split('/')
        path = _find_package(package) / FOLDERS[package] / file_name
        photographs[name] = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if photographs[name] is None:
            raise InputError(f'{path}: the photograph that this version of {package} should contain is missing')
    return photographs


def _find_package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise InputError("the demo's data set needs scikit-learn and scikit-image: pip install mmmamba[demo]")
    return Path(spec.origin).parent


@dataclass(frozen=True)
class Composition:
    """What decides every pixel of the data set.

    Args:
        seed: Of all draws.
        train_images: Number of training images.
        val_images: Number of validation images.
        image_size: Side of the square images, in pixels.
        digits: Least and largest number of digits wanted in an image; fewer if there is no room.
        digit_size: Smallest and largest side of a digit's 8x8 scan, in pixels.
        max_covered: Largest part of a digit that later ones may cover.
        min_contrast: Least difference between the brightness of a digit and of what is behind it, of 255.
    """
    seed: int = 0
    train_images: int = 300
    val_images: int = 60
    image_size: int = 256
    digits: tuple[int, int] = (2, 5)
    digit_size: tuple[int, int] = (64, 128)
    max_covered: float = 0.05
    min_contrast: float = 70.0


@dataclass
class PlacedDigit:
    """A digit in an image: its visible ink, (H, W) bool, and how many pixels it had before others covered some."""
    digit: Digit
    visible: np.ndarray
    full_area: int


def compose(root: Path, composition: Composition) -> None:
    """Writes ``root/{train,val}/*.jpg`` and ``root/annotations/{train,val}.json``; one that is complete is kept.

    The data set is written aside and renamed in one step, so that ``root`` exists only when complete. Of several
    processes, one writes it, and the others wait.

    Raises:
        InputError: If ``root`` exists and is not this composer's, or if scikit-learn or scikit-image are missing.
    """
    info = {'description': DESCRIPTION, 'version': VERSION, 'composition': json.loads(json.dumps(asdict(composition)))}
    if _read_info(root) == info:  # which may be on a disk that can only be read
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with locked(root.with_name(f'.{root.name}.lock')):
        if root.exists():
            found = _read_info(root)
            if found == info:  # another process has written it meanwhile
                return
            if found.get('description') != DESCRIPTION:
                raise InputError(f"{root}: exists and is not the demo's data set; name another folder")
            shutil.rmtree(root)
        draft = Path(tempfile.mkdtemp(prefix=f'{root.name}.', suffix='.tmp', dir=root.parent))
        try:
            (draft / 'annotations').mkdir()
            for split, count in (('train', composition.train_images), ('val', composition.val_images)):
                (draft / split).mkdir()
                content = {'info': info, **_compose_split(draft / split, split, count, composition)}
                (draft / 'annotations' / f'{split}.json').write_text(json.dumps(content), encoding='utf-8')
            draft.chmod(0o755)
            os.replace(draft, root)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _read_info(root: Path) -> dict:
    try:
        return json.loads((root / 'annotations' / 'val.json').read_text(encoding='utf-8'))['info']
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _compose_split(folder: Path, split: str, count: int, composition: Composition) -> dict:
    """Writes the images of one split and returns the lists of its COCO file."""
    rng = np.random.default_rng([composition.seed, int(split == 'val')])
    digits = _endless(load_digits(split), rng)
    photographs = load_photographs(split)
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id in range(1, count + 1):
        name = str(rng.choice(list(photographs)))
        image = _crop_background(photographs[name], composition.image_size, rng)
        wanted = int(rng.integers(composition.digits[0], composition.digits[1], endpoint=True))
        image, placed = _place_digits(image, [next(digits) for _ in range(wanted)], composition, rng)
        file_name = f'{image_id:06d}.jpg'
        cv2.imwrite(str(folder / file_name), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        images.append({'id': image_id, 'file_name': file_name, 'height': composition.image_size,
                       'width': composition.image_size, 'photograph': name})
        for item in placed:
            annotations.append({'id': len(annotations) + 1, 'image_id': image_id, **_annotation(item)})
    categories = [{'id': i, 'name': name} for i, name in enumerate(CLASSES, start=1)]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def _endless(digits: list[Digit], rng: np.random.Generator) -> Iterator[Digit]:
    """Yields all digits in a random order, then all again in another."""
    while True:
        for index in rng.permutation(len(digits)):
            yield digits[index]


def _crop_background(photograph: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Cuts a random square of at least half the photograph's shorter side, mirrors it or not, and resizes it."""
    height, width = photograph.shape[:2]
    side = int(rng.integers(min(height, width) // 2, min(height, width), endpoint=True))
    top = int(rng.integers(0, height - side, endpoint=True))
    left = int(rng.integers(0, width - side, endpoint=True))
    crop = photograph[top:top + side, left:left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=interpolation)


def _place_digits(image: np.ndarray, digits: list[Digit], composition: Composition,
                  rng: np.random.Generator) -> tuple[np.ndarray, list[PlacedDigit]]:
    """Pastes digits one over the other, skipping those that find no place among the earlier ones."""
    placed: list[PlacedDigit] = []
    canvas = image.astype(np.float32)
    for digit in digits:
        for _ in range(20):
            side = int(rng.integers(*composition.digit_size, endpoint=True))
            alpha = _paste_alpha(_render(digit.ink, side, rng), image.shape[0], rng)
            ink = alpha >= 0.5
            if all((other.visible & ~ink).sum() >= (1 - composition.max_covered) * other.full_area
                   for other in placed):
                break
        else:
            continue
        colour = _pick_colour(canvas[ink], composition.min_contrast, rng)
        canvas += alpha[..., None] * (colour - canvas)
        for other in placed:
            other.visible &= ~ink
        placed.append(PlacedDigit(digit, ink, int(ink.sum())))
    return np.clip(canvas.round(), 0, 255).astype(np.uint8), placed


def _render(ink: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Enlarges a scan smoothly to (side, side), a little rotated and slanted, and turns it into an alpha map."""
    angle, slant = np.deg2rad(rng.uniform(-10, 10)), rng.uniform(-0.15, 0.15)
    scale = side / 8
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * turn @ np.array([[1.0, slant], [0.0, 1.0]])
    centre = np.array([3.5, 3.5])
    offset = (side - 1) / 2 - matrix @ centre
    large = cv2.warpAffine(ink, np.column_stack([matrix, offset]), (side, side), flags=cv2.INTER_CUBIC)
    large = cv2.GaussianBlur(large, (0, 0), scale * 0.2)
    return np.clip((large - 0.35) / 0.3, 0, 1)


def _paste_alpha(alpha: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Puts a digit's alpha map, cut to its ink, wholly inside an empty (size, size) map."""
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    alpha = alpha[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    height, width = alpha.shape
    top = int(rng.integers(0, size - height, endpoint=True))
    left = int(rng.integers(0, size - width, endpoint=True))
    out = np.zeros((size, size), np.float32)
    out[top:top + height, left:left + width] = alpha
    return out


def _pick_colour(background: np.ndarray, min_contrast: float, rng: np.random.Generator) -> np.ndarray:
    """Draws BGR colours until one is clearly brighter or darker than the mean of ``background``, (P, 3)."""
    to_brightness = np.array([0.114, 0.587, 0.299], np.float32)
    behind = background.mean(axis=0) @ to_brightness
    while True:
        colour = rng.uniform(0, 255, size=3).astype(np.float32)
        if abs(colour @ to_brightness - behind) >= min_contrast:
            return colour


def _annotation(placed: PlacedDigit) -> dict:
    """Describes the visible ink: exact box [x, y, w, h], area in pixels, and run-length mask."""
    rows, columns = np.flatnonzero(placed.visible.any(axis=1)), np.flatnonzero(placed.visible.any(axis=0))
    box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
    rle = coco_mask.encode(np.asfortranarray(placed.visible.astype(np.uint8)))
    return {
        'category_id': placed.digit.label + 1,
        'bbox': [int(value) for value in box],
        'area': int(placed.visible.sum()),
        'segmentation': {'size': rle['size'], 'counts': rle['counts'].decode('ascii')},
        'iscrowd': 0,
        'digit': placed.digit.number,
    }
