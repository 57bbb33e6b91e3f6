"""Small COCO files with faults of every kind that label tools, spreadsheets and editors make, at random places."""
from __future__ import annotations

import codecs
import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

NAN, INF = float('nan'), float('inf')
CLASSES = ('cat', 'dog', 'cow')
SIZES = ((48, 36), (36, 48), (40, 40))  # width, height
IDS = [0, -1, 1.0, 1.5, True, False, '7', 'a', '', ' ', None, 2**53 + 1, 2**53 + 2, 10**30, NAN, [], {}, 3, 9,
       '\ud800']
FLAGS = [True, False, 1, 0, 1.0, 0.5, 2, -1, '0', '1', None, NAN, [], {}]
NUMBERS = [0, -3, 0.5, 1e9, 1e308, 10**400, '12', None, NAN, INF, -INF, True, [4], {}, 7.5, 1e-9]
BOXES = [None, [], [1, 2, 3], [1, 2, 3, 4, 5], '1 2 3 4', ['1', '2', '3', '4'], [[1, 2, 3, 4]], {'x': 1},
         [1, 2, None, 4], [5, 5, -3, 9], [5, 5, 0, 9], [5, 5, 0.4, 0.4], [90, 5, 9, 9],
         [-20, 5, 9, 9], [30, 20, 40, 40], [5, 5, NAN, 9],
         [5, 5, INF, 9], [0, 0, 1e308, 1e308], [0, 0, 10**400, 3], [True, 2, 9, 9], [5.25, 5.5, 9.125, 9.0]]
MASKS = [None, [], [[]], {}, '', 'polygon', [[1, 2, 3, 4]], [[2, 2, 9, 2, 9]], [[2, 2, 9, 2, 9, 9, 2]],
         [2, 2, 9, 2, 9, 9],
         [[2, 2, 9, 2, NAN, 9]], [['2', '2', '9', '2', '9', '9']], [[2, 2, 9, 2, 1e300, 9]], [None], [{}], True, 3,
         [[2, 2, 9, 2, 9, 9], [1, 1]], [[1, 1], [2, 2, 9, 2, 9, 9]], [[2, 2, 9, 2, 9, 9], []],
         {'size': [36, 48]}, {'counts': [1]}, {'size': [36, 48], 'counts': [10, 5]},
         {'size': [36, 48], 'counts': '52203'},
         {'size': [36, 48], 'counts': 'a'}, {'size': [48, 36], 'counts': [0, 1728]},
         {'size': [36, 48], 'counts': [1728]},
         {'size': [36, 48], 'counts': ['1728']}, {'size': [36, 48], 'counts': [-5, 1733]},
         {'size': None, 'counts': None},
         {'size': [36.0, 48.0], 'counts': [100, 50, 1578]}, {'size': [36, 48], 'counts': [100, 50, 1578]}]
FILE_NAMES = ['', ' ', '0.png ', '.', '..', './0.png', 'sub/../1.png', '../0.png', '..\\0.png', 'sub\\0.png', '/0.png',
              'C:\\0.png', '\\\\host\\0.png', 'none.png', 'a\0.png', '0.PNG', 0, None, [], '\ud800.png', 'a\nb.png',
              '0.png', '1.png']
NAMES = [7, 7.0, 0, -1.5, '7', None, True, '', ' ', 'Cat', ' cat', 'cat ', 'cat', 'dog', NAN, [], {}, 'c\nat',
         '\ud83d', 'owl']


def compose(root: Path) -> dict:
    """Writes ``root/img/*.png`` and returns the content of a file of them without a fault."""
    (root / 'img').mkdir()
    content: dict = {'images': [], 'annotations': [], 'categories': [
        {'id': key, 'name': name} for key, name in zip((1, 2, 5), CLASSES)]}
    for index, (width, height) in enumerate(SIZES):
        cv2.imwrite(str(root / 'img' / f'{index}.png'), np.zeros((height, width, 3), np.uint8))
        content['images'].append({'id': index + 1, 'file_name': f'{index}.png', 'width': width, 'height': height})
        for left, category in ((2, 1), (20, (1, 2, 5)[index])):
            x, y, w, h = left, 4 + index, 11, 15
            content['annotations'].append({
                'id': len(content['annotations']) + 1, 'image_id': index + 1, 'category_id': category,
                'bbox': [x, y, w, h], 'area': w * h, 'iscrowd': 0,
                'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]]})
    mask = np.zeros(SIZES[0][::-1], np.uint8, order='F')
    mask[26:33, 3:40] = 1
    rle = coco_mask.encode(mask)
    content['annotations'].append({
        'id': 7, 'image_id': 1, 'category_id': 2, 'bbox': [3, 26, 37, 7], 'area': 259, 'iscrowd': 1,
        'segmentation': {'size': rle['size'], 'counts': rle['counts'].decode()}})
    return content


def mutate(content: dict, rng: np.random.Generator, times: int) -> tuple[list[str], bytes]:
    """Makes faults.

    Args:
        content: A file's; not changed.
        rng: Chooses kinds and places.
        times: How many.

    Returns:
        What was done, and the bytes of the file.
    """
    content = copy.deepcopy(content)
    done = []
    for _ in range(times):
        name, change = MUTATIONS[rng.integers(len(MUTATIONS))]
        done.append(f'{name}: {change(content, rng)!r:.60}')
    text = json.dumps(content).encode()
    if rng.random() < 0.08:
        name, encode = ENCODINGS[rng.integers(len(ENCODINGS))]
        return [*done, name], encode(text)
    return done, text


def _set(where: str, key: str, values: list) -> Callable:
    def change(content: dict, rng: np.random.Generator) -> object:
        value = copy.deepcopy(values[rng.integers(len(values))])
        _pick(content, where, rng)[key] = value
        return value
    return change


def _set_all(where: str, key: str, values: list) -> Callable:
    def change(content: dict, rng: np.random.Generator) -> object:
        value = values[rng.integers(len(values))]
        for entry in content[where]:
            entry[key] = value
        return value
    return change


def _pop(where: str, keys: tuple[str, ...]) -> Callable:
    def change(content: dict, rng: np.random.Generator) -> object:
        key = keys[rng.integers(len(keys))]
        _pick(content, where, rng).pop(key, None)
        return key
    return change


def _rename(where: str, pairs: tuple[tuple[str, str], ...], form: Callable) -> Callable:
    """Writes an id in another form, with all references to it."""
    def change(content: dict, rng: np.random.Generator) -> object:
        for entries, key in pairs:
            for entry in content[entries]:
                entry[key] = form(entry[key])
        return where
    return change


def _shuffle(content: dict, rng: np.random.Generator) -> str:
    where = ('images', 'categories', 'annotations')[rng.integers(3)]
    rng.shuffle(content[where])
    return where


def _repeat(content: dict, rng: np.random.Generator) -> str:
    where = ('images', 'categories', 'annotations')[rng.integers(3)]
    content[where].append(copy.deepcopy(_pick(content, where, rng)))
    if rng.random() < 0.5:
        content[where][-1]['id'] = 50
    return where


def _replace_entry(content: dict, rng: np.random.Generator) -> str:
    where = ('images', 'categories', 'annotations')[rng.integers(3)]
    values = [None, 'text\nof lines', 3, [], {}]
    content[where][rng.integers(len(content[where]))] = values[rng.integers(len(values))]
    return where


def _replace_list(content: dict, rng: np.random.Generator) -> str:
    where = ('images', 'categories', 'annotations')[rng.integers(3)]
    if rng.random() < 0.4:
        del content[where][:]
    elif rng.random() < 0.5:
        content[where] = [{}, None, 'x', 3][rng.integers(4)]
    else:
        content.pop(where)
    return where


def _safely(change: Callable) -> Callable:
    """Passes over what another change has taken away."""
    def run(content: dict, rng: np.random.Generator) -> object:
        try:
            return change(content, rng)
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
            return 'impossible'
    return run


def _pick(content: dict, where: str, rng: np.random.Generator) -> dict:
    return content[where][rng.integers(len(content[where]))]


_IMAGE_ID = (('images', 'id'), ('annotations', 'image_id'))
_CATEGORY_ID = (('categories', 'id'), ('annotations', 'category_id'))
_FORMS = (float, str, bool, lambda key: key - 1, lambda key: -key, lambda key: key + 2**53, lambda key: f'img {key}')
MUTATIONS = [(name, _safely(change)) for name, change in [
    *((f'{where} id', _set(where, 'id', IDS)) for where in ('images', 'categories', 'annotations')),
    *((f'annotation {key}', _set('annotations', key, [*IDS, 1, '1', 2.0, 5.0]))
      for key in ('image_id', 'category_id')),
    *(('all image ids', _rename('images', _IMAGE_ID, form)) for form in _FORMS),
    *(('all category ids', _rename('categories', _CATEGORY_ID, form)) for form in _FORMS),
    *(('all annotation ids', _rename('annotations', (('annotations', 'id'), ), form)) for form in _FORMS),
    *((f'annotation {key}', _set('annotations', key, FLAGS)) for key in ('iscrowd', 'ignore')),
    *((f'all {key}', _set_all('annotations', key, FLAGS)) for key in ('iscrowd', 'ignore')),
    ('bbox', _set('annotations', 'bbox', BOXES)), ('all boxes', _set_all('annotations', 'bbox', BOXES)),
    ('area', _set('annotations', 'area', NUMBERS)), ('all areas', _set_all('annotations', 'area', NUMBERS)),
    *2 * [('segmentation', _set('annotations', 'segmentation', MASKS))],
    ('all segmentations', _set_all('annotations', 'segmentation', MASKS)),
    *((side, _set('images', side, [*NUMBERS, 36.0, 48.0, 40, '40'])) for side in ('width', 'height')),
    ('file_name', _set('images', 'file_name', FILE_NAMES)),
    ('name', _set('categories', 'name', NAMES)), ('all names', _set_all('categories', 'name', NAMES)),
    ('missing', _pop('annotations', ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'segmentation'))),
    ('missing', _pop('images', ('id', 'file_name', 'width', 'height'))),
    ('missing', _pop('categories', ('id', 'name'))),
    ('shuffled', _shuffle), ('repeated', _repeat), ('entry', _replace_entry), ('list', _replace_list),
]]
ENCODINGS = [
    ('BOM', lambda text: codecs.BOM_UTF8 + text), ('UTF-16', lambda text: text.decode().encode('utf-16')),
    ('gzip', gzip.compress), ('empty', lambda _: b''), ('list', lambda text: b'[' + text + b']'),
    ('cut', lambda text: text[:len(text) // 2]), ('spaces', lambda text: b' \n' + text + b'\n'),
    ('deep', lambda text: b'[' * 100_000), ('digits', lambda text: b'[' + b'1' * 5000 + b']'),
]
