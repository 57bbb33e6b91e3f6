"""What is corrected in a copy of a COCO file, because it has one meaning only and tools write it so.

Everything else is an error of one line: see :mod:`mmmamba.datasets.coco_checks`.
"""
from __future__ import annotations

import codecs
import ntpath
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmmamba.datasets.coco_checks import is_number
from mmmamba.datasets.formats.conversion import tidy
from mmmamba.datasets.formats.image_sizes import read_sizes


def repair(content: dict, path: Path, folder: Path) -> list[str]:
    """Corrects a file's content in place. It may be malformed, and nothing is said about that.

    Args:
        content: Of the file.
        path: The file.
        folder: Of its images.

    Returns:
        What was corrected, in words.
    """
    images, annotations = entries_of(content, 'images'), entries_of(content, 'annotations')
    with open(path, 'rb') as file:
        marked = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
    return [what for what, done in (
        ('a mark at the start (BOM)', marked),
        ('file names', _correct_names(images, folder)),
        ('sizes of images were missing', _add_sizes(images, folder)),
        ('annotations are numbered from 1', _number_from_one(annotations)),
        ('iscrowd or area was missing', _add_missing(annotations)),
        ('classes are in the order of their ids', _sort_categories(content)),
    ) if done]


def drop_roboflow_root(contents: Mapping[str, dict]) -> list[str]:
    """Removes class 0 of Roboflow's files, which stands for all classes and has no objects, in place.

    Returns:
        The splits that had it; none if an object is of that class.
    """
    had = []
    for split, content in contents.items():
        categories = entries_of(content, 'categories')
        roots = [item for item in categories if item.get('id') == 0 and item.get('supercategory') == 'none']
        others = [item for item in categories if item not in roots]
        if len(roots) == 1 and others and all(item.get('supercategory') == roots[0].get('name') for item in others):
            if any(item.get('category_id') == 0 for item in entries_of(content, 'annotations')):
                return []
            had.append(split)
    for split in had:
        contents[split]['categories'] = [item for item in contents[split]['categories'] if item['id'] != 0]
    return had


def image_names(content: Mapping) -> list[str]:
    """Returns the file names of a content that may be malformed."""
    names = (image.get('file_name') for image in entries_of(content, 'images'))
    return [name for name in names if isinstance(name, str) and name and '\0' not in name]


def entries_of(content: Mapping, key: str) -> list[dict]:
    """Returns the entries under a key of a content that may be malformed, without what is none."""
    found = content.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _correct_names(images: Sequence[dict], folder: Path) -> bool:
    """Makes names of Windows, or with folders of another machine, relative to the image folder, where an image is."""
    changed = False
    for image in images:
        name = image.get('file_name')
        if not isinstance(name, str) or '\0' in name:
            continue
        parts = [part for part in name.replace('\\', '/').split('/') if part not in ('', '.')]
        foreign = '\\' in name or os.path.isabs(name) or bool(ntpath.splitdrive(name)[0])
        there = not os.path.isabs(name) and os.path.isfile(folder / name)
        if '..' in parts or not (foreign or len(parts) > 1) or there:
            continue
        for start in range(len(parts)):
            if os.path.isfile(folder.joinpath(*parts[start:])):
                image['file_name'] = '/'.join(parts[start:])
                changed = True
                break
    return changed


def _add_sizes(images: Sequence[dict], folder: Path) -> bool:
    lacking = [image for image in images if isinstance(image.get('file_name'), str)
               and not ('width' in image and 'height' in image)]
    sizes = read_sizes([folder / image['file_name'] for image in lacking])
    for image, size in zip(lacking, sizes):
        if size:
            image['width'], image['height'] = size
    return any(sizes)


def _number_from_one(annotations: Sequence[dict]) -> bool:
    """Numbers annotations anew if their ids are whole numbers from 0, which COCO's evaluation takes for no match."""
    ids = [item.get('id') for item in annotations]
    if 0 not in ids or not all(type(key) is int for key in ids) or len(set(ids)) < len(ids):
        return False
    for number, item in enumerate(annotations, start=1):
        item['id'] = number
    return True


def _add_missing(annotations: Sequence[dict]) -> bool:
    changed = False
    for item in annotations:
        box = item.get('bbox')
        if 'iscrowd' not in item:
            item['iscrowd'] = 0
            changed = True
        if 'area' not in item:
            sound = isinstance(box, list) and len(box) == 4 and all(map(is_number, box))
            item['area'] = tidy(box[2] * box[3]) if sound else 0  # the check names what is wrong with the box
            changed = True
    return changed


def _sort_categories(content: dict) -> bool:
    """Sorts the classes by their ids, in which order COCO's evaluation has them."""
    categories = entries_of(content, 'categories')
    ids = [item.get('id') for item in categories]
    if not all(type(key) is int for key in ids) or ids == sorted(ids) or len(ids) != len(content['categories']):
        return False
    content['categories'] = sorted(categories, key=lambda item: item['id'])
    return True
