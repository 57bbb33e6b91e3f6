"""A composed data set without faults, and one fault at a time put into it."""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = (96, 64)
IMAGES = {'train': 6, 'val': 3}
CLASSES = ('bolt', 'nut')


def compose(root: Path) -> Path:
    """Writes pictures of coarse noise, which no two have in common, with one object of each class in each."""
    rng = np.random.default_rng(0)
    (root / 'annotations').mkdir(parents=True)
    for split, count in IMAGES.items():
        (root / split).mkdir()
        content = {'images': [], 'annotations': [],
                   'categories': [{'id': i, 'name': name} for i, name in enumerate(CLASSES, 1)]}
        for key in range(1, count + 1):
            coarse = rng.integers(0, 255, (8, 12, 3), dtype=np.uint8)
            cv2.imwrite(str(root / split / f'{key}.png'), cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC))
            content['images'].append({'id': key, 'file_name': f'{key}.png', 'width': SIZE[0], 'height': SIZE[1]})
            for category in (1, 2):
                content['annotations'].append({
                    'id': len(content['annotations']) + 1, 'image_id': key, 'category_id': category,
                    'bbox': [5 + 30 * category, 10, 20, 30], 'area': 600, 'iscrowd': 0})
        (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))
    return root


def edited(split: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    """A fault of an annotation file."""
    def edit(root: Path) -> None:
        path = root / 'annotations' / f'{split}.json'
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    return edit


def box(*values: float | None, split: str = 'train', **others: object) -> Callable[[Path], None]:
    """One more object, in the first image of a split; None is null."""
    def add(content: dict) -> None:
        entry = {'id': 99, 'image_id': 1, 'category_id': 1, 'bbox': list(values),
                 'area': 0 if None in values else values[2] * values[3], 'iscrowd': 0}
        content['annotations'].append({**entry, **others})
    return edited(split, add)


def picture(name: str, shape: tuple[int, ...], dtype: type = np.uint8, size: bool = True) -> Callable[[Path], None]:
    """Another picture in place of an image, of which the annotation file knows the size or not."""
    split, file = name.split('/')

    def write(root: Path) -> None:
        rng = np.random.default_rng(9)
        cv2.imwrite(str(root / name), rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype))
        if size:
            entry = {'width': shape[1], 'height': shape[0]}
            edited(split, lambda content: next(image for image in content['images']
                                               if image['file_name'] == file).update(entry))(root)
    return write


def copied(source: str, target: str, **save: object) -> Callable[[Path], None]:
    """One file instead of another; saved anew with some arguments of Pillow."""
    def copy(root: Path) -> None:
        if save:
            with Image.open(root / source) as image:
                image.save(root / target, **save)
        else:
            (root / target).write_bytes((root / source).read_bytes())
    return copy


def cut(name: str) -> Callable[[Path], None]:
    """A file without its end."""
    def write(root: Path) -> None:
        (root / name).write_bytes((root / name).read_bytes()[:-200])
    return write


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for item in changes:
            item(root)
    return change


def without(key: str, test: Callable[[dict], bool]) -> Callable[[dict], None]:
    """Entries of a file removed."""
    def remove(content: dict) -> None:
        content[key] = [item for item in content[key] if not test(item)]
    return remove


def more_nuts(content: dict) -> None:
    """Twenty-odd nuts for a bolt."""
    without('annotations', lambda item: item['category_id'] == 1 and item['image_id'] > 1)(content)
    for number in range(40):
        content['annotations'].append({'id': 100 + number, 'image_id': 1 + number % 6, 'category_id': 2, 'area': 50,
                                       'bbox': [2 + 2 * (number // 6) * 6, 45, 10, 5 + number // 6], 'iscrowd': 0})


def pixels_in_labels(root: Path) -> None:
    """The same images as YOLO's, with a label file of one of them, which is wrong."""
    shutil.rmtree(root / 'annotations')
    (root / 'train' / '1.txt').write_text('0 50 30 20 20')


FAULTS: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    'no val': ('data', 'error', lambda root: (root / 'annotations' / 'val.json').unlink()),
    'malformed labels': ('labels', 'error', pixels_in_labels),
    'malformed box': ('annotation', 'error', box(1, 2, 3, None)),
    'malformed box in val': ('annotation', 'error', box(1, 2, 3, None, split='val')),
    'other classes': ('annotation', 'error', edited('val', lambda content: content['categories'][1].update(name='x'))),
    'negative area': ('annotation', 'error', box(5, 5, 9, 9, split='val', area=-1)),
    'nothing to learn': ('annotation', 'error', edited('train', lambda content: content.update(annotations=[
        {**content['annotations'][0], 'ignore': 1}]))),
    'missing image': ('missing_image', 'error', lambda root: (root / 'train' / '2.png').unlink()),
    'missing image of val': ('missing_image', 'error', lambda root: (root / 'val' / '2.png').unlink()),
    'most are damaged': ('unusable', 'error', both(*(cut(f'train/{key}.png') for key in range(1, 5)))),
    'damaged': ('unreadable', 'warning', cut('train/2.png')),
    'damaged in val': ('unreadable', 'error', cut('val/2.png')),
    'other size': ('size_differs', 'warning', picture('train/2.png', (50, 50, 3), size=False)),
    'other size in val': ('size_differs', 'error', picture('val/2.png', (50, 50, 3), size=False)),
    'turned': ('size_differs', 'warning', picture('train/2.png', (96, 64, 3), size=False)),
    'too thin': ('too_thin', 'warning', picture('train/2.png', (2, 2000, 3))),
    'leak': ('leak', 'warning', copied('train/2.png', 'val/3.png')),
    'leak saved anew': ('near_leak', 'warning', copied('train/2.png', 'val/3.png', format='JPEG', quality=60)),
    'outside': ('outside', 'warning', box(200, 5, 10, 10)),
    'outside in val': ('outside', 'warning', box(200, 5, 10, 10, split='val')),
    'flat': ('no_area', 'warning', box(5, 5, 10, 0)),
    'beyond': ('beyond', 'warning', box(-10, 5, 30, 12)),
    'no mask': ('mask', 'warning', box(5, 5, 10, 12, segmentation=[[1, 1, 2, 2]])),
    'two classes': ('two_classes', 'warning', box(35, 10, 20, 30, category_id=2)),
    'twice': ('duplicate_box', 'warning', box(35.2, 10, 20, 30)),
    'tiny': ('tiny', 'warning', box(5, 5, 1.5, 1.5)),
    'no class': ('no_class', 'warning', edited('val', without('annotations', lambda item: item['category_id'] == 1))),
    'rare': ('imbalance', 'warning', edited('train', more_nuts)),
    'ignored': ('ignored', 'note', box(5, 5, 12, 14, ignore=1)),
    'no truth': ('no_truth', 'warning', edited('val', lambda content: content.update(annotations=[]))),
    '16 bits': ('deep', 'warning', picture('train/2.png', (64, 96, 3), np.uint16)),
    'elongated': ('elongated', 'warning', picture('train/2.png', (48, 400, 3))),
    'copy': ('duplicate', 'warning', copied('train/2.png', 'train/3.png')),
    'copy saved anew': ('near_duplicate', 'note', copied('train/2.png', 'train/3.png', format='JPEG', quality=60)),
    'empty': ('empty', 'note', edited('train', without('annotations', lambda item: item['image_id'] == 2))),
    'unlisted': ('unlisted', 'note', picture('train/new.png', (30, 30, 3), size=False)),
    'whole': ('whole_image', 'note', box(0, 0, 96, 64)),
    'elongated box': ('elongated_box', 'note', box(2, 5, 90, 3)),
    'grey': ('channels', 'note', picture('train/2.png', (64, 96))),
    'transparent': ('channels', 'note', picture('train/2.png', (64, 96, 4))),
}
"""Name → kind of the finding, its severity, and the change that makes it."""
