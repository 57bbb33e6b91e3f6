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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    for fault in find_faults(content, path, for_evaluation):
        raise InputError(fault.text)
    return content


@dataclass(frozen=True)
class Fault:
    """What keeps an annotation file from being used.

    Args:
        text: One line with the file, the entry and what to change.
        kind: Of the entry: ``'image'``, ``'category'`` or ``'annotation'``; empty where it is the whole file's.
        key: The entry's id; None if it has none.
    """
    text: str
    kind: str = ''
    key: object = None


def find_faults(content: dict, path: str, for_evaluation: bool) -> Iterator[Fault]:
    """Yields what is wrong with the content of an annotation file, in the order in which it is looked at.

    A reader that goes on after a fault is left with the sound entries: the others are removed from ``content``, and so
    are the annotations of a removed image or category, without a fault of their own.

    Args:
        content: What :func:`read_json` returned; it is changed, also as :func:`read_annotations` normalises it.
        path: The file, for messages.
        for_evaluation: As in :func:`read_annotations`.
    """
    kinds = {'images': ('image', ('file_name', 'width', 'height')), 'categories': ('category', ('name', )),
             'annotations': ('annotation', ('image_id', 'category_id', 'bbox', 'area',
                                            *(('iscrowd', ) if for_evaluation else ())))}
    may_be_empty = set()
    if for_evaluation and content.get('annotations', []) == []:  # images alone
        content['annotations'] = []
        may_be_empty.add('annotations')
    for key in kinds:
        if not isinstance(content.get(key), list):
            yield Fault(f'{path} is not in COCO format: it has no list of {key}')
            content[key] = []
            may_be_empty.add(key)
    ids = {key: _ids_of(content[key]) for key in kinds}
    sound: dict[str, dict] = {key: {} for key in kinds}
    for key, (kind, needed) in kinds.items():
        yield from _by_id(content[key], kind, needed, path, sound[key])
    for key in ('images', 'categories', 'annotations'):
        if not content[key] and key not in may_be_empty:
            yield Fault(f'{path} has no {key}')

    images, categories, annotations = sound['images'], sound['categories'], sound['annotations']
    yield from _check_images(images, path)
    yield from _check_categories(categories, path, for_evaluation)
    removed = {'image_id': ids['images'] - images.keys(), 'category_id': ids['categories'] - categories.keys()}
    for key, annotation in list(annotations.items()):
        if any(isinstance(annotation[name], (int, str)) and annotation[name] in gone
               for name, gone in removed.items()):
            del annotations[key]
            continue
        text = _annotation_fault(annotation, images, categories)
        if text:
            del annotations[key]
            yield Fault(f'{path}: annotation {key!r} {text}', 'annotation', key)
    for key in list(annotations):
        if for_evaluation and not (isinstance(key, int) and key >= 1):
            yield Fault(f"{path}: annotation {key!r}: COCO's evaluation needs whole numbers from 1 as ids of "
                        f'annotations (it takes 0 for "not found"): number them from 1', 'annotation', key)
            del annotations[key]
    content.update({key: list(entries.values()) for key, entries in sound.items()})


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
    missing = find_missing_images(images, folder)
    if missing:
        raise InputError(f'{len(missing)} of {len(images)} images of {path} are not in {folder or "."}: '
                         f'{_quoted(missing)}')


def find_missing_images(images: Sequence[dict], folder: str) -> list[str]:
    """Returns the file names of those images that are not in a folder."""
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
    return missing


def is_number(value: object, most: float = _MAX_SIDE) -> bool:
    """Tells whether a value of a JSON file is a number of at most that magnitude; true, false and NaN are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -most <= value <= most


def is_text(value: object) -> bool:
    """Tells whether a value of a JSON file is a text of one line that is not empty."""
    return isinstance(value, str) and bool(value.strip()) and not _CONTROL.search(value)


def _ids_of(entries: list) -> set:
    """Returns the ids that entries have, sound or not, without what no id can be."""
    keys = (entry.get('id') for entry in entries if isinstance(entry, dict))
    return {key for key in keys if isinstance(key, (int, str))}


def _by_id(entries: list, kind: str, keys: tuple[str, ...], path: str, found: dict) -> Iterator[Fault]:
    """Collects entries by their ids into ``found``, and yields why others are left out."""
    for entry in entries:
        if not isinstance(entry, dict) or 'id' not in entry:
            yield Fault(f'{path}: an entry of kind {kind} has no id: {entry!r:.80}', kind)
            continue
        key = entry['id']
        if not (is_text(key) or isinstance(key, int) and is_number(key, _MAX_ID)):
            yield Fault(f'{path}: an entry of kind {kind} has id {key!r:.80}: ids are whole numbers, such as 1', kind)
            continue
        lacking = [name for name in keys if name not in entry]
        if lacking:
            yield Fault(f'{path}: {kind} {key!r} has no {" and no ".join(lacking)}', kind, key)
        elif key in found:
            yield Fault(f'{path}: two entries of kind {kind} have id {key!r}', kind, key)
        else:
            found[key] = entry
    if len(set(map(type, found))) > 1:
        yield Fault(f'{path}: some ids of kind {kind} are numbers and some are text: '
                    f'{_quoted([next(key for key in found if isinstance(key, form)) for form in (int, str)])}', kind)
        for key in [key for key in found if not isinstance(key, int)]:
            del found[key]


def _check_images(images: dict, path: str) -> Iterator[Fault]:
    owners: dict[str, object] = {}
    for key, image in list(images.items()):
        text = _image_fault(image, owners)
        if text:
            del images[key]
            yield Fault(f'{path}: {text}', 'image', key)


def _image_fault(image: dict, owners: dict[str, object]) -> str | None:
    """Tells what is wrong with an image's entry; ``owners`` are the images before it by their files."""
    key, name = image['id'], image['file_name']
    for side in ('width', 'height'):
        if not is_number(image[side]) or image[side] < 1 or image[side] != int(image[side]):
            return f'image {key!r} has {side} {image[side]!r:.80}, not a whole number of pixels'
    if not is_text(name):
        return f'image {key!r} has file_name {name!r:.80}'
    # ntpath takes both kinds of slash, so a file written for Windows is judged alike everywhere.
    place = ntpath.normpath(name)
    if osp.isabs(name) or ntpath.splitdrive(name)[0] or place.startswith(('..', '\\')):
        return f'file_name {name!r} of image {key!r} leads out of the image folder'
    if owners.setdefault(place, key) != key:
        return (f'images {owners[place]!r} and {key!r} have the same file_name {name!r}, so each lacks the objects of '
                f'the other: list the image once')
    return None


def _check_categories(categories: dict, path: str, for_evaluation: bool) -> Iterator[Fault]:
    owners: dict[str, object] = {}
    for key, category in list(categories.items()):
        name = category['name']
        if is_number(name, _MAX_ID) and not for_evaluation:
            category['name'] = name = str(int(name) if name == int(name) else name)
        if not is_text(name):
            fault = 'is empty or has a line break or tab' if isinstance(name, str) else 'is no text: quote it'
            text = f'category {key!r} has the name {name!r:.80}, which {fault}'
        elif owners.setdefault(name, key) != key:
            text = f'categories {owners[name]!r} and {key!r} have the same name {name!r}'
        else:
            continue
        del categories[key]
        yield Fault(f'{path}: {text}', 'category', key)
    if not for_evaluation:
        return
    for key in [key for key in categories if not isinstance(key, int)]:
        del categories[key]
        yield Fault(f"{path}: category {key!r}: COCO's evaluation needs a whole number as its id", 'category', key)
    for key, following in zip(categories, list(categories)[1:]):
        if following < key:
            yield Fault(f'{path} lists category {following} after {key}: CocoMetric exchanges the AP of '
                        f'classes that are not in the order of their ids: sort the categories', 'category', following)
            return


def _annotation_fault(annotation: dict, images: dict, categories: dict) -> str | None:
    """Tells what is wrong with an annotation, and brings its references and flags into the form that mmdet expects."""
    for reference, known in (('image_id', images), ('category_id', categories)):
        value = annotation[reference]
        if isinstance(value, float) and value.is_integer():
            annotation[reference] = value = int(value)
        if isinstance(value, bool) or not isinstance(value, (int, str)) or value not in known:
            return f'has {reference} {value!r:.80}, which the file does not list'
    box = annotation['bbox']
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return f'has bbox {box!r:.80}, not four finite numbers of at most {_MAX_SIDE} pixels'
    if not is_number(annotation['area'], _MAX_SIDE**2):
        return f'has area {annotation["area"]!r:.80}, not a finite number of at most {_MAX_SIDE**2} pixels'
    for flag in ('iscrowd', 'ignore'):
        value = annotation.get(flag, 0)
        if not isinstance(value, (int, float)) or value not in (0, 1):
            return f'has {flag} {value!r:.80}, which must be 0 or 1'
        if flag in annotation:
            annotation[flag] = int(value)
    return None


def _quoted(names: Sequence[object], limit: int = 3) -> str:
    return first_names([repr(name) for name in names], limit)
