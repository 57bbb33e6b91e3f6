"""The one reader of COCO annotation files, for training, testing, comparing and the demo.

Whatever mmdet or pycocotools would crash on or misread raises an InputError of one line with the file, the entry and
what to change. mmdet's CocoMetric reads the file again by itself: for evaluation nothing may need correction, and in
training what has only one meaning is normalised.
"""
from __future__ import annotations

import json
import ntpath
import os
import os.path as osp
import re
from collections.abc import Sequence

from mmmamba.errors import InputError, first_names

_MAX_SIDE = 100_000
_MAX_ID = 2**53  # larger numbers lose digits in floating point, which tools keep ids in, and become equal
_CONTROL = re.compile('[\x00-\x1f\ud800-\udfff]')  # with halves of UTF-16 pairs, which cannot be printed


def read_annotations(path: str, for_evaluation: bool) -> dict:
    """Reads an annotation file and checks every entry by itself, and the references between them.

    Accepted with their one meaning are references such as ``1.0`` for 1, flags such as ``true`` for 1, and in training
    categories that are named by a number, which becomes text.

    Args:
        path: The file.
        for_evaluation: Whether COCO's evaluation will read it. It needs whole numbers as ids, those of annotations
            from 1, ``iscrowd`` everywhere, and categories in the order of their ids; a list of images alone
            (COCO's test-dev) will do.

    Returns:
        Its content, with lists under ``images``, ``annotations`` and ``categories``.

    Raises:
        InputError: The first fault that was found.
    """
    return check_annotations(read_json(path), path, for_evaluation)


def read_json(path: str, encoding: str = 'utf-8') -> dict:
    """Reads a JSON file that holds an object.

    Args:
        path: The file.
        encoding: ``'utf-8-sig'`` accepts a mark at its start (BOM), which nothing else that reads such files does.

    Raises:
        InputError: It cannot be read, or holds something else.
    """
    try:
        with open(path, encoding=encoding) as file:
            content = json.load(file)
    except FileNotFoundError:
        raise InputError(f'no such annotation file: {path}') from None
    except UnicodeDecodeError:
        raise InputError(f'{path} is not text in UTF-8, which JSON is written in: save it so, uncompressed') from None
    except json.JSONDecodeError as error:
        raise InputError(f'{path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}') from None
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror or error}') from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise InputError(f'{path} cannot be read: {error}') from None
    if not isinstance(content, dict):
        raise InputError(f'{path} is not in COCO format: it holds a {type(content).__name__}, not an object')
    return content


def check_annotations(content: dict, path: str, for_evaluation: bool) -> dict:
    """Checks the content of an annotation file as :func:`read_annotations` does; ``path`` is for messages."""
    lists = ('images', 'categories', 'annotations')
    images_alone = for_evaluation and content.get('annotations', []) == []
    if images_alone:
        content['annotations'] = []
    for key in lists:
        if not isinstance(content.get(key), list):
            raise InputError(f'{path} is not in COCO format: it has no list of {key}')
    images = _by_id(content['images'], 'image', ('file_name', 'width', 'height'), path)
    categories = _by_id(content['categories'], 'category', ('name', ), path)
    needed = ('image_id', 'category_id', 'bbox', 'area', *(('iscrowd', ) if for_evaluation else ()))
    annotations = _by_id(content['annotations'], 'annotation', needed, path)
    for key in lists:
        if not content[key] and not (key == 'annotations' and images_alone):
            raise InputError(f'{path} has no {key}')

    _check_images(images, path)
    _check_categories(categories, path, for_evaluation)
    for key, annotation in annotations.items():
        _check_annotation(annotation, images, categories, f'{path}: annotation {key!r}')
    unfit = next((key for key in annotations if for_evaluation and not (isinstance(key, int) and key >= 1)), None)
    if unfit is not None:
        raise InputError(f"{path}: annotation {unfit!r}: COCO's evaluation needs whole numbers from 1 as ids of "
                         f'annotations (it takes 0 for "not found"): number them from 1')
    return content


def check_classes(content: dict, classes: Sequence[str], path: str) -> None:
    """Checks that the file has the configured classes, in the configured order, from which labels are numbered.

    Args:
        content: What :func:`read_annotations` returned.
        classes: The configured class names (``metainfo``).
        path: The file, for messages.
    """
    if isinstance(classes, str):
        raise InputError(f'metainfo has classes={classes!r}, a text: write classes=({classes!r}, )')
    named = [category['name'] for category in content['categories']]
    missing = [name for name in classes if name not in named]
    if missing:
        raise InputError(f"{path} does not have the configured classes: {_quoted(missing)} not among the file's "
                         f'categories {_quoted(named, 20)} (list them there, or set metainfo=dict(classes=...) and '
                         f'num_classes)')
    in_order = [name for name in named if name in classes]
    if in_order != list(classes):
        raise InputError(f'{path} lists its categories in another order than the configured classes, which would '
                         f'exchange labels: file {_quoted(in_order, 20)}, configured {_quoted(classes, 20)}')


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
                         f'{_quoted(missing)}')


def is_number(value: object, most: float = _MAX_SIDE) -> bool:
    """Tells whether a value of a JSON file is a number of at most that magnitude; true, false and NaN are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -most <= value <= most


def _by_id(entries: list, kind: str, keys: tuple[str, ...], path: str) -> dict:
    found: dict = {}
    for entry in entries:
        if not isinstance(entry, dict) or 'id' not in entry:
            raise InputError(f'{path}: an entry of kind {kind} has no id: {entry!r:.80}')
        key = entry['id']
        if not (_is_text(key) or isinstance(key, int) and is_number(key, _MAX_ID)):
            raise InputError(f'{path}: an entry of kind {kind} has id {key!r:.80}: ids are whole numbers, such as 1')
        lacking = [name for name in keys if name not in entry]
        if lacking:
            raise InputError(f'{path}: {kind} {key!r} has no {" and no ".join(lacking)}')
        if key in found:
            raise InputError(f'{path}: two entries of kind {kind} have id {key!r}')
        found[key] = entry
    if len(set(map(type, found))) > 1:
        raise InputError(f'{path}: some ids of kind {kind} are numbers and some are text: '
                         f'{_quoted([next(key for key in found if isinstance(key, form)) for form in (int, str)])}')
    return found


def _check_images(images: dict, path: str) -> None:
    owners: dict[str, object] = {}
    for key, image in images.items():
        for side in ('width', 'height'):
            if not is_number(image[side]) or image[side] < 1 or image[side] != int(image[side]):
                raise InputError(f'{path}: image {key!r} has {side} {image[side]!r:.80}, not a whole number of pixels')
        name = image['file_name']
        if not _is_text(name):
            raise InputError(f'{path}: image {key!r} has file_name {name!r:.80}')
        # ntpath takes both kinds of slash, so a file written for Windows is judged alike everywhere.
        place = ntpath.normpath(name)
        if osp.isabs(name) or ntpath.splitdrive(name)[0] or place.startswith(('..', '\\')):
            raise InputError(f'{path}: file_name {name!r} of image {key!r} leads out of the image folder')
        if owners.setdefault(place, key) != key:
            raise InputError(f'{path}: images {owners[place]!r} and {key!r} have the same file_name {name!r}, so each '
                             f'lacks the objects of the other: list the image once')


def _check_categories(categories: dict, path: str, for_evaluation: bool) -> None:
    owners: dict[str, object] = {}
    for key, category in categories.items():
        name = category['name']
        if is_number(name, _MAX_ID) and not for_evaluation:
            category['name'] = name = str(int(name) if name == int(name) else name)
        if not _is_text(name):
            fault = 'is empty or has a line break or tab' if isinstance(name, str) else 'is no text: quote it'
            raise InputError(f'{path}: category {key!r} has the name {name!r:.80}, which {fault}')
        if owners.setdefault(name, key) != key:
            raise InputError(f'{path}: categories {owners[name]!r} and {key!r} have the same name {name!r}')
    if for_evaluation:
        strange = [key for key in categories if not isinstance(key, int)]
        if strange:
            raise InputError(f"{path}: category {strange[0]!r}: COCO's evaluation needs a whole number as its id")
        for key, following in zip(categories, list(categories)[1:]):
            if following < key:
                raise InputError(f'{path} lists category {following} after {key}: CocoMetric exchanges the AP of '
                                 f'classes that are not in the order of their ids: sort the categories')


def _check_annotation(annotation: dict, images: dict, categories: dict, where: str) -> None:
    """Checks one annotation, and brings its references and flags into the form that mmdet expects."""
    for reference, known in (('image_id', images), ('category_id', categories)):
        value = annotation[reference]
        if isinstance(value, float) and value.is_integer():
            annotation[reference] = value = int(value)
        if isinstance(value, bool) or not isinstance(value, (int, str)) or value not in known:
            raise InputError(f'{where} has {reference} {value!r:.80}, which the file does not list')
    box = annotation['bbox']
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise InputError(f'{where} has bbox {box!r:.80}, not four finite numbers of at most {_MAX_SIDE} pixels')
    if not is_number(annotation['area'], _MAX_SIDE**2):
        raise InputError(f'{where} has area {annotation["area"]!r:.80}, not a finite number of at most '
                         f'{_MAX_SIDE**2} pixels')
    for flag in ('iscrowd', 'ignore'):
        value = annotation.get(flag, 0)
        if not isinstance(value, (int, float)) or value not in (0, 1):
            raise InputError(f'{where} has {flag} {value!r:.80}, which must be 0 or 1')
        if flag in annotation:
            annotation[flag] = int(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not _CONTROL.search(value)


def _quoted(names: Sequence[object], limit: int = 3) -> str:
    return first_names([repr(name) for name in names], limit)
