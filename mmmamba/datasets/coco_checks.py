"""Checks of the content of a COCO annotation file; each raises an InputError that names the file and the entry."""
from __future__ import annotations

import json
import math
import ntpath
import os
import os.path as osp
from collections import Counter
from collections.abc import Iterable, Sequence

from mmmamba.errors import InputError

_NAMED = 3
_MAX_SIDE = 100_000


def read_annotations(path: str, need_annotations: bool) -> dict:
    """Reads an annotation file and checks that it has COCO's outline.

    Args:
        path: The file.
        need_annotations: Whether a file without annotations is an error (a test set may have none).

    Returns:
        Its content, with lists under ``images``, ``annotations`` and ``categories``.
    """
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except FileNotFoundError:
        raise InputError(f'no such annotation file: {path}') from None
    except json.JSONDecodeError as error:
        raise InputError(f'{path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}') from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'{path} cannot be read: {getattr(error, "strerror", None) or error}') from None

    if not isinstance(content, dict):
        raise InputError(f'{path} is not in COCO format: it holds a {type(content).__name__}, not an object')
    content.setdefault('annotations', [])
    lists = ('images', 'annotations', 'categories')
    for key in lists:
        if not isinstance(content.get(key), list):
            raise InputError(f'{path} is not in COCO format: it has no list of {key}')
    for key in lists:
        if not content[key] and (key != 'annotations' or need_annotations):
            raise InputError(f'{path} has no {key}')
    return content


def check_entries(content: dict, path: str, for_evaluation: bool = False) -> None:
    """Checks every image, category and annotation by itself, and the references between them.

    Args:
        content: What :func:`read_annotations` returned.
        path: The file, for messages.
        for_evaluation: Whether COCO's evaluation will read it, which needs ``iscrowd`` of every annotation, and whole
            numbers as ids of categories.
    """
    images = _by_id(content['images'], 'image', ('file_name', 'width', 'height'), path)
    categories = _by_id(content['categories'], 'category', ('name',), path)
    for key, image in images.items():
        for side in ('width', 'height'):
            if not _is_number(image[side]) or not 1 <= image[side] <= _MAX_SIDE:
                raise InputError(f'{path}: image {key} has {side} {image[side]!r}')
    strange = [key for key in categories if not isinstance(key, int)]
    if for_evaluation and strange:
        raise InputError(f"{path}: category {strange[0]!r}: COCO's evaluation needs a whole number as its id")
    needed = ('image_id', 'category_id', 'bbox', 'area', *(('iscrowd', ) if for_evaluation else ()))
    annotations = _by_id(content['annotations'], 'annotation', needed, path)
    for key, annotation in annotations.items():
        for reference, known in (('image_id', images), ('category_id', categories)):
            if annotation[reference] not in known:
                raise InputError(f'{path}: annotation {key} has {reference} {annotation[reference]!r}, '
                                 f'which the file does not list')
        box = annotation['bbox']
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            raise InputError(f'{path}: annotation {key} has bbox {box!r}, not four finite numbers')
        if not _is_number(annotation['area']):
            raise InputError(f'{path}: annotation {key} has area {annotation["area"]!r}, not a finite number')


def check_classes(content: dict, classes: Sequence[str], path: str) -> str:
    """Checks that the file has the configured classes, in the configured order, from which labels are numbered.

    Args:
        content: What :func:`read_annotations` returned.
        classes: The configured class names (``metainfo``).
        path: The file, for messages.

    Returns:
        A remark on categories that are annotated but not configured, or an empty string.
    """
    named = [category['name'] for category in content['categories']]
    missing = [name for name in classes if name not in named]
    if missing:
        raise InputError(f"{path} does not have the configured classes: {_list(missing)} not among the file's "
                         f"categories {_list(named, 20)} (set metainfo=dict(classes=...) and num_classes)")
    in_order = [name for name in named if name in classes]
    if in_order != list(classes):
        raise InputError(f'{path} lists its categories in another order than the configured classes, which would '
                         f'exchange labels: file {_list(in_order, 20)}, configured {_list(classes, 20)}')
    others = {item['id']: item['name'] for item in content['categories'] if item['name'] not in classes}
    counts = Counter(others[item['category_id']] for item in content['annotations'] if item['category_id'] in others)
    return f'annotations of unconfigured categories are ignored: {dict(counts)}' if counts else ''


def find_unusable_boxes(content: dict) -> dict[int, str]:
    """Finds the boxes that mmdet passes over.

    Args:
        content: What :func:`check_entries` has checked.

    Returns:
        The reason, by the annotation's id.
    """
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    reasons = {}
    for annotation in content['annotations']:
        x, y, w, h = annotation['bbox']
        width, height = sizes[annotation['image_id']]
        if w < 1 or h < 1:
            reasons[annotation['id']] = 'thinner than a pixel'
        elif min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
            reasons[annotation['id']] = 'outside the image'
        elif annotation['area'] <= 0:
            reasons[annotation['id']] = 'of zero area'
    return reasons


def summarise_boxes(reasons: dict[int, str]) -> str:
    """Puts what :func:`find_unusable_boxes` returned into one line; empty where it found nothing."""
    parts = []
    for reason, count in Counter(reasons.values()).items():
        ids = [key for key, found in reasons.items() if found == reason]
        parts.append(f'{count} {reason} (annotation {_list(ids)})')
    return f'unusable boxes are left out: {"; ".join(parts)}' if parts else ''


def check_file_names(images: Iterable[dict], path: str) -> None:
    """Checks that no file name leads out of the image folder.

    Args:
        images: The file's images.
        path: The file, for messages.
    """
    for image in images:
        name = image['file_name']
        if not isinstance(name, str) or not name:
            raise InputError(f'{path}: image {image["id"]} has file_name {name!r}')
        # ntpath takes both kinds of slash, so a file written for Windows is judged alike everywhere.
        if osp.isabs(name) or ntpath.splitdrive(name)[0] or ntpath.normpath(name).startswith(('..', '\\')):
            raise InputError(f'{path}: file_name {name!r} of image {image["id"]} leads out of the image folder')


def check_images_exist(images: Sequence[dict], folder: str, path: str) -> None:
    """Checks that the images are on the disk, by listing their folders, which is faster than asking for each.

    Args:
        images: The file's images.
        folder: The image folder.
        path: The file, for messages.
    """
    if folder and not osp.isdir(folder):
        raise InputError(f'no such image folder: {folder}')
    listings: dict[str, set[str]] = {}
    missing = []
    for image in images:
        parent, name = osp.split(image['file_name'])
        if parent not in listings:
            place = osp.join(folder, parent)
            listings[parent] = set(os.listdir(place or '.')) if osp.isdir(place or '.') else set()
        # Systems that fold case or Unicode forms list a name in other letters than it is asked for.
        if name not in listings[parent] and not osp.isfile(osp.join(folder, image['file_name'])):
            missing.append(image['file_name'])
    if missing:
        raise InputError(f'{len(missing)} of {len(images)} images of {path} are not in {folder or "."}: '
                         f'{_list(missing)}')


def _by_id(entries: list, kind: str, keys: tuple[str, ...], path: str) -> dict:
    found: dict = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get('id'), (int, str)):
            raise InputError(f'{path}: an entry of kind {kind} has no id: {str(entry)[:80]}')
        lacking = [key for key in keys if key not in entry]
        if lacking:
            raise InputError(f'{path}: {kind} {entry["id"]} has no {" and no ".join(lacking)}')
        if entry['id'] in found:
            raise InputError(f'{path}: two entries of kind {kind} have id {entry["id"]}')
        found[entry['id']] = entry
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _list(items: Iterable, limit: int = _NAMED) -> str:
    items = [str(item) for item in items]
    return ', '.join(items[:limit]) + (', …' if len(items) > limit else '')
