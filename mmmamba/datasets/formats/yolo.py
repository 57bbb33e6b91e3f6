"""Data sets in YOLO's format: Ultralytics' and Roboflow's folders, with data.yaml or without, and Darknet's lists."""
from __future__ import annotations

import math
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mmmamba.datasets.formats.conversion import Source
from mmmamba.datasets.formats.listing import Listing, is_image, split_named
from mmmamba.datasets.formats.yolo_labels import MOST_CLASSES, YoloLabels
from mmmamba.errors import InputError, first_names

_YAML = ('.yaml', '.yml')
_NAME_FILES = ('classes.txt', 'obj.names', 'labels.txt')
_DRIVE = re.compile(r'[A-Za-z]:')
_NOTHING = ('', 'null', '~')


def yolo_evidence(root: Path, listing: Listing) -> str | None:
    """Returns the file or the folder that tells that a folder is a data set in YOLO's format; None if none does."""
    settings = _find_yaml(root, listing)
    if settings:
        return settings.name
    lists = _lists(root, listing)
    if 'train' in lists:
        return lists['train'].name
    for folder in (root, *listing.splits(root).values()):
        labels = listing.folder_named(folder, 'labels')
        if labels and any(listing.by_stem(inner, '.txt') for inner in listing.walk(labels)):
            return f'{labels.relative_to(root)}/'
    for image in _pictures_beside(root, listing):
        if image.stem in listing.by_stem(image.parent, '.txt'):
            return f'{listing.by_stem(image.parent, ".txt")[image.stem]} next to its image'
    return None


def find_yolo(path: Path, evidence: str, listing: Listing) -> Source:
    """Finds the images and the label files of a data set.

    The label file of ``…/images/…/a.jpg`` is ``…/labels/…/a.txt``, or it is in a folder ``labels`` next to the image,
    or next to the image itself. An image without one has no objects.

    Args:
        path: A folder, or its data.yaml.
        evidence: See :func:`yolo_evidence`.
        listing: What is looked at.

    Raises:
        InputError: data.yaml is malformed, or names what is not there; lists do; or a label file has two images.
    """
    settings_path = path if path.is_file() else _find_yaml(path, listing)
    root = path.parent if path.is_file() else path
    settings = _read_yaml(settings_path, listing) if settings_path else {}
    notes: list[str] = []
    if settings_path and any(settings.get(key) for key in ('train', 'val', 'valid', 'test')):
        root, images = _named_images(settings, settings_path, listing, notes)
    else:
        images = _found_images(root, listing)
    labels = _Labels(listing)
    splits = {split: {image: labels.of(image) for image in sorted(found)} for split, found in images.items()}
    names = (_names(settings, settings_path) if settings_path else None) or _names_from_file(
        root, labels.folders, listing)
    keypoints = _keypoints(settings, settings_path)
    reader = YoloLabels(listing, names, keypoints)
    source = Source(path, 'YOLO', evidence, listing, splits, reader, names, notes)
    if keypoints:
        source.notes.append('keypoints are left out')
    if names is None:
        source.notes.append('classes have no names (data.yaml or classes.txt would give them)')
    for split in splits.values():
        for image, label in split.items():
            if label is None:
                source.remarks.add('images without a label file, which have no objects', image)
    for stray in labels.without_image(root):
        source.remarks.add('label files without an image', stray)
    return source


class _Labels:
    """Finds the label file of an image; no file may have two."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.folders: dict[Path, None] = {}  # in the order in which they were found
        self._candidates: dict[Path, list[Path]] = {}
        self._owners: dict[Path, Path] = {}

    def of(self, image: Path) -> Path | None:
        """Returns the file, or None if there is none."""
        for folder in self._of_folder(image.parent):
            name = self.listing.by_stem(folder, '.txt').get(image.stem)
            if name is not None:
                self.folders[folder] = None
                other = self._owners.setdefault(folder / name, image)
                if other.name != image.name:
                    raise InputError(f'{folder / name} is the label file of two images, {other.name} and {image.name}:'
                                     f' rename one of them')
                return folder / name
        return None

    def without_image(self, root: Path) -> Iterator[Path]:
        """Yields the label files in folders ``labels`` of which no image is in the data set's folder."""
        stems = {image.stem for image in self.listing.images(root)}
        for folder in self.folders:
            if 'labels' in map(str.lower, folder.parts):
                for stem, name in self.listing.by_stem(folder, '.txt').items():
                    if folder / name not in self._owners and stem not in stems and name.lower() not in _NAME_FILES:
                        yield folder / name

    def _of_folder(self, folder: Path) -> list[Path]:
        if folder not in self._candidates:
            parts, candidates = folder.parts, []
            index = next((i for i in reversed(range(len(parts))) if parts[i].lower() == 'images'), None)
            if index is not None:
                labels = self.listing.folder_named(Path(*parts[:index]), 'labels')
                candidates += [labels.joinpath(*parts[index + 1:])] if labels else []
            labels = self.listing.folder_named(folder, 'labels')
            self._candidates[folder] = [*candidates, *([labels] if labels else []), folder]
        return self._candidates[folder]


def _find_yaml(root: Path, listing: Listing) -> Path | None:
    """Returns the file with the settings: data.yaml, or the only YAML file with ``names`` or ``train``."""
    names = [name for name in listing.files(root) if name.lower().endswith(_YAML)]
    usual = [name for name in names if os.path.splitext(name)[0].lower() in ('data', 'dataset')]
    if usual:
        return root / usual[0]
    fitting = [name for name in names if {'names', 'train'} & set(_read_yaml(root / name, listing, lenient=True))]
    if len(fitting) > 1:
        raise InputError(f'{root} has several files with settings of a data set: {first_names(fitting)}; name the one '
                         f'that is meant: --data {root / fitting[0]}')
    return root / fitting[0] if fitting else None


def _read_yaml(path: Path, listing: Listing, lenient: bool = False) -> dict[str, Any]:
    """Reads a YAML file: dicts, lists and texts; ``no`` is a name and not False, and nothing in it is executed."""
    try:
        content = yaml.load(listing.text(path), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, InputError) as error:
        if lenient:
            return {}
        if isinstance(error, InputError):
            raise
        mark = getattr(error, 'problem_mark', None)
        place = f', line {mark.line + 1}' if mark else ''
        problem = getattr(error, 'problem', None) or error
        raise InputError(f'{path}{place}: this is not valid YAML: {problem}') from None
    if isinstance(content, dict) and all(isinstance(key, str) for key in content):
        return content
    if lenient:
        return {}
    raise InputError(f'{path}: there are no settings in it (train: …, val: …, names: …)')


def _named_images(settings: Mapping[str, Any], path: Path, listing: Listing,
                  notes: list[str]) -> tuple[Path, dict[str, list[Path]]]:
    """Returns the folder that a data.yaml's paths are relative to, and the images of its splits."""
    named: dict[str, list[str]] = {}
    for key in ('train', 'val', 'valid', 'validation', 'test'):
        value = settings.get(key, '')
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise InputError(f'{path}: {key} must be a path or a list of paths')
        values = [item for item in values if item not in _NOTHING]
        if values:
            named.setdefault(split_named(key), values)
    if 'train' not in named:
        raise InputError(f'{path}: train is missing: the folder with the images for training')
    home = path.parent
    given = settings.get('path', '')
    if not isinstance(given, str):
        raise InputError(f'{path}: path must be a folder')
    bases = [home]
    if given not in _NOTHING:
        bases = [home / given.replace('\\', '/'), home]
    base = next((base for base in bases if _place(base, named['train'][0])), None)
    if base is None:
        raise InputError(f'{path}: train: there is no {named["train"][0]} in {" or ".join(map(str, bases))}')
    if base is home and len(bases) > 1 and home.absolute() != Path(os.path.normpath(bases[0].absolute())):
        notes.append(f'path: {given} does not hold the images here, so {home} was taken')
    elif base is not home and Path(os.path.normpath(base.absolute())) != home.absolute():
        notes.append(f'images are from {base}, as its path says')
    base = Path(os.path.normpath(base))
    images: dict[str, list[Path]] = {}
    for split, values in named.items():
        found: dict[Path, None] = {}
        for value in values:
            place = _place(base, value)
            if place is None and split == 'test':
                notes.append(f'test is left out: there is no {value}')
            elif place is None:
                raise InputError(f'{path}: {split}: there is no {value} in {base}')
            elif place.is_dir():
                found.update(dict.fromkeys(listing.images(place)))
            else:
                found.update(dict.fromkeys(_listed_images(place, base, listing)))
        if not found and split != 'test':
            raise InputError(f'{path}: {split}: there is no image in {", ".join(values)}')
        if found:
            images[split] = list(found)
    if images.get('val') == images['train']:
        notes.append('val has the same images as train')
    return base, images


def _found_images(root: Path, listing: Listing) -> dict[str, list[Path]]:
    """Returns the images of the splits of a folder without data.yaml; without splits, all are train."""
    lists = _lists(root, listing)
    if 'train' in lists:
        return {split: list(dict.fromkeys(_listed_images(path, root, listing))) for split, path in lists.items()}
    pictures = listing.folder_named(root, 'images') or root
    for folder in (pictures, root):
        splits = listing.splits(folder)
        if splits:
            found = {split: listing.images(path) for split, path in splits.items()}
            found = {split: images for split, images in found.items() if images}
            if found and 'train' not in found:
                raise InputError(f'{folder}: there are images for {" and ".join(found)}, and none in train/')
            if found:
                return found
    return {'train': listing.images(pictures)}


def _pictures_beside(root: Path, listing: Listing) -> Iterator[Path]:
    for folder in (root, *listing.splits(root).values()):
        yield from (folder / name for name in listing.files(folder) if is_image(name))


def _lists(root: Path, listing: Listing) -> dict[str, Path]:
    """Returns the lists of images in a folder: train.txt, val.txt or valid.txt, test.txt."""
    found: dict[str, Path] = {}
    for stem, name in listing.by_stem(root, '.txt').items():
        split = split_named(stem)
        if split and not any(is_image(other) and os.path.splitext(other)[0] == stem for other in listing.files(root)):
            found.setdefault(split, root / name)
    return found


def _listed_images(path: Path, root: Path, listing: Listing) -> Iterator[Path]:
    """Yields the images of a list, a path a line: absolute, or relative to the list's folder or to the data set's.

    Raises:
        InputError: There is no such image, or a relative path leads out of the data set; the line is named.
    """
    for number, line in enumerate(listing.text(path).splitlines(), start=1):
        entry = line.strip()
        if not entry:
            continue
        if not is_image(entry):
            raise InputError(f'{path}, line {number}: {entry:.80} has no ending of an image')
        image = next(filter(None, (_place(base, entry, listing) for base in dict.fromkeys((path.parent, root)))), None)
        if image is None:
            raise InputError(f'{path}, line {number}: there is no image {entry:.200} in {root}')
        yield image


def _place(base: Path, entry: str, listing: Listing | None = None) -> Path | None:
    """Returns where a path of a data.yaml or a list leads; None if it leads nowhere.

    Relative paths stay inside ``base``: ``../`` at the start is left out, as Roboflow's files need it. An absolute one
    is taken as it is; if that is not there, it is of another machine, and the longest end of it that is in ``base``
    is taken. Backslashes count as slashes.

    Args:
        base: What the path is relative to.
        entry: The path.
        listing: What is asked for files; without one, the disk is asked for files and folders.
    """
    def exists(path: Path) -> bool:
        return path.exists() if listing is None else path.name in listing.files(path.parent)

    entry = entry.strip().replace('\\', '/')
    absolute = entry.startswith('/') or _DRIVE.match(entry) is not None
    if absolute and exists(Path(entry)):
        return Path(entry)
    parts = [part for part in posixpath.normpath(entry).split('/') if part not in ('', '..')]
    tails: Sequence[Sequence[str]] = [parts[start:] for start in range(len(parts))] if absolute or listing else [parts]
    return next((base.joinpath(*tail) for tail in tails if exists(base.joinpath(*tail))), None)


def _keypoints(settings: Mapping[str, Any], path: Path | None) -> int:
    """Returns how many numbers the keypoints of a pose have, by ``kpt_shape: [17, 3]``; 0 if there are none."""
    shape = settings.get('kpt_shape', '')
    if shape in _NOTHING:
        return 0
    if not isinstance(shape, list) or not all(isinstance(side, str) and side.isdecimal() for side in shape):
        raise InputError(f'{path}: kpt_shape must be [keypoints, 2 or 3]')
    return math.prod(map(int, shape))


def _names(settings: Mapping[str, Any], path: Path) -> dict[int | str, str] | None:
    """Returns the names of a data.yaml by their numbers; of ``nc`` alone, the numbers are the names."""
    names, count = settings.get('names'), settings.get('nc')
    if count is not None and not _is_class_number(count):
        raise InputError(f'{path}: nc is {count!r:.80}, not the number of classes')
    if names in (None, *_NOTHING):
        return None if count is None else {key: str(key) for key in range(int(count))}
    if isinstance(names, dict):
        wrong = next((key for key in names if not _is_class_number(key)), None)
        if wrong is not None:
            raise InputError(f'{path}: names has the key {wrong!r:.80}: keys are the numbers of classes, from 0')
        found = {int(key): names[key] for key in sorted(names, key=int)}
    elif isinstance(names, list):
        found = dict(enumerate(names))
    else:
        raise InputError(f'{path}: names must be a list, as in names: [cat, dog]')
    if count is not None and len(found) != int(count):
        raise InputError(f'{path}: names has {len(found)} names and nc is {count}: correct one of them')
    return _checked_names(found, path)


def _is_class_number(text: object) -> bool:
    return isinstance(text, str) and text.isdecimal() and len(text) < len(str(MOST_CLASSES))


def _names_from_file(root: Path, folders: Mapping[Path, None], listing: Listing) -> dict[int | str, str] | None:
    """Returns the names in a file with one a line, in the data set's folder or among the labels."""
    for folder in (root, *folders, *(folder.parent for folder in folders)):
        names = {name.lower(): name for name in listing.files(folder)}
        for usual in _NAME_FILES:
            if usual in names:
                lines = [line.strip() for line in listing.text(folder / names[usual]).splitlines()]
                while lines and not lines[-1]:
                    lines.pop()
                return _checked_names(dict(enumerate(lines)), folder / names[usual])
    return None


def _checked_names(names: Mapping[int, Any], path: Path) -> dict[int | str, str]:
    owners: dict[str, int] = {}
    for key, name in names.items():
        if not isinstance(name, str) or not name.strip():
            raise InputError(f'{path}: class {key} has no name')
        if owners.setdefault(name.strip(), key) != key:
            raise InputError(f'{path}: classes {owners[name.strip()]} and {key} have the same name {name.strip()!r}')
    return {key: name.strip() for key, name in names.items()}
