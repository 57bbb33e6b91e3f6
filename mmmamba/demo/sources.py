"""The raw material of the demo's data set: handwriting scans and photographs that ship inside two wheels."""
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mmmamba.errors import InputError

# Photographs of train and val are disjoint, and both have busy and calm ones, people-made and natural ones.
PHOTOGRAPHS = {
    'train': ('skimage/astronaut.png', 'skimage/brick.png', 'skimage/camera.png', 'skimage/chelsea.png',
              'skimage/grass.png', 'skimage/motorcycle_left.png', 'skimage/rocket.jpg', 'sklearn/china.jpg'),
    'val': ('skimage/coffee.png', 'skimage/gravel.png', 'sklearn/flower.jpg'),
}
VAL_EVERY = 5
FOLDERS = {'skimage': ('skimage', 'data'), 'sklearn': ('sklearn', 'datasets', 'images')}


class Digit(NamedTuple):
    """A scan: its number in scikit-learn's data set, its class, and ink of shape (8, 8) in [0, 1]."""
    number: int
    label: int
    ink: np.ndarray


def load_digits(split: str) -> list[Digit]:
    """Loads one split of scikit-learn's 1797 handwritten digits; every fifth is val."""
    if find_spec('sklearn') is None:
        raise InputError("the demo's data set needs scikit-learn: pip install mmmamba[demo]")
    from sklearn import datasets

    bunch = datasets.load_digits()
    return [Digit(number, int(label), (scan / 16).astype(np.float32))
            for number, (label, scan) in enumerate(zip(bunch.target, bunch.images))
            if (number % VAL_EVERY == 0) == (split == 'val')]


def load_photographs(split: str) -> dict[str, np.ndarray]:
    """Loads the photographs of one split, name → BGR (H, W, 3) uint8, in a fixed order."""
    return {name: _load_photograph(name) for name in PHOTOGRAPHS[split]}


def _load_photograph(name: str) -> np.ndarray:
    origin, file_name = name.split('/')
    package, *folder = FOLDERS[origin]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError("the demo's data set needs scikit-learn and scikit-image: pip install mmmamba[demo]")
    path = Path(spec.origin).parent.joinpath(*folder, file_name)
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f'{path}: the photograph that this version of {package} should contain is missing')
    return image
