"""The check of a data set, with the functions that training itself reads its annotations and images with."""
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmcv.image import rescale_size

from mmmamba.analysis.data_check.boxes import by_image, count_objects, find_in_classes, find_in_objects
from mmmamba.analysis.data_check.findings import (
    ERROR,
    KINDS,
    WARNING,
    DataReport,
    Finding,
    SplitSummary,
    listed,
    shown,
)
from mmmamba.analysis.data_check.images import ImageFacts, read_images
from mmmamba.analysis.data_check.twins import find_twins
from mmmamba.datasets.coco_checks import check_classes, find_faults, find_missing_images, read_json
from mmmamba.datasets.coco_objects import check_objects
from mmmamba.datasets.formats import DataFolder, FaultyLabelsError, Split, find_data, guess_coco
from mmmamba.datasets.formats.coco_repairs import entries_of, repair
from mmmamba.datasets.formats.listing import Listing
from mmmamba.datasets.transforms.load_checked_image import UnreadableImageError, check_frame
from mmmamba.errors import InputError

_ELONGATED = 5.0
_DEEP = ('16 bits', 'CMYK')
_UNUSABLE = ('unreadable', 'size_differs', 'too_thin')


class CheckedData(NamedTuple):
    """A report, and what it is about.

    Args:
        report: The findings.
        folders: Split → folder of its images.
        contents: Split → the sound entries of its annotation file.
    """
    report: DataReport
    folders: Mapping[str, Path]
    contents: Mapping[str, dict]


def check_data(path: Path, image_size: tuple[int, int], quick: bool = False) -> CheckedData:
    """Checks a data set as far as it can be read; what is wrong with it raises nothing.

    Args:
        path: The folder or file, as ``--data`` takes it.
        image_size: Width and height in pixels that training scales images into.
        quick: Read the headers of images alone: see ``read_images``.
    """
    findings: list[Finding] = []
    try:
        data = find_data(path)
    except FaultyLabelsError as error:
        findings += [_finding('labels', split, line) for split, lines in error.faults.items() for line in lines]
        data = _guess_folder(path)
    except InputError as error:
        findings.append(_finding('data', '', str(error)))
        data = _guess_folder(path)
    contents = {}
    for name, split in data.splits.items():
        contents[name], found = _read_split(name, split)
        findings += found
    faults = {item.sentence for item in findings if item.kind == 'annotation'}
    findings = [item for item in findings if item.kind != 'data' or item.sentence not in faults]
    classes = data.classes or _classes_of(contents)
    for name, split in data.splits.items():
        findings += _check_split(name, split, contents[name], classes)
        findings += find_in_objects(name, contents[name], image_size)
    findings += _find_in_images(data, contents, image_size, quick)

    splits = {name: _summarise(split, contents[name], classes, image_size) for name, split in data.splits.items()}
    findings += find_in_classes({name: summary.classes for name, summary in splits.items()}, classes)
    rank = {(severity, kind): place for place, (severity, kind, _) in enumerate(
        DataReport('', '', image_size, quick, findings=findings).groups())}
    findings.sort(key=lambda item: rank[item.severity, item.kind])
    report = DataReport(shown(path), data.format, image_size, quick, classes, tuple(map(shown, data.remarks)), splits,
                        findings)
    return CheckedData(report, {name: split.images for name, split in data.splits.items()}, contents)


def _finding(kind: str, split: str, sentence: str, file: str = '', severity: str | None = None) -> Finding:
    """Makes a finding; nothing in a test split keeps a training from going on."""
    severity = severity or KINDS[kind].severity
    if severity == ERROR and split == 'test':
        severity = WARNING
    return Finding(kind, severity, split, shown(sentence), file)


def _guess_folder(path: Path) -> DataFolder:
    """Returns what can still be looked at of a data set that training refuses: that of COCO files."""
    splits = guess_coco(path)
    return DataFolder(path, 'COCO' if splits else '', splits, ())


def _classes_of(contents: Mapping[str, dict]) -> tuple[str, ...]:
    return next((tuple(item['name'] for item in content['categories']) for content in contents.values()), ())


def _read_split(name: str, split: Split) -> tuple[dict, list[Finding]]:
    """Returns the sound entries of a split's file, and why the others are left out."""
    path = str(split.annotations)
    try:
        content = read_json(path, 'utf-8-sig')
    except InputError as error:
        return {'images': [], 'annotations': [], 'categories': []}, [_finding('annotation', name, str(error))]
    repair(content, split.annotations, split.images)  # what training corrects is no fault
    files = _files_of(content)
    findings = []
    for fault in find_faults(content, path, for_evaluation=name != 'train'):
        findings.append(_finding('annotation', name, fault.text, files.get((fault.kind, fault.key), '')))
    return content, findings


def _files_of(content: dict) -> dict:
    """Returns (kind of an entry, its id) → the file name of its image, as far as that can be told."""
    def is_id(value: object) -> bool:
        return isinstance(value, (int, str))

    files: dict = {('image', item.get('id')): item['file_name'] for item in entries_of(content, 'images')
                   if is_id(item.get('id')) and isinstance(item.get('file_name'), str)}
    for item in entries_of(content, 'annotations'):
        key, image = item.get('id'), item.get('image_id')
        if is_id(key) and is_id(image) and ('image', image) in files:
            files['annotation', key] = files['image', image]
    return files


def _check_split(name: str, split: Split, content: dict, classes: Sequence[str]) -> Iterator[Finding]:
    """Yields what training, or its validation, would say about the file as a whole."""
    path, for_evaluation = str(split.annotations), name != 'train'
    if not content['images'] or not content['categories']:
        return  # said already
    try:
        check_classes(content, classes, path)
        if content['annotations'] or not for_evaluation:
            check_objects(content, classes, path, for_evaluation)
        else:
            yield _finding('no_truth', name, f'{path} has no annotations, so AP will be -1')
    except InputError as error:
        yield _finding('annotation', name, str(error))
    objects = by_image(content)
    for image in content['images']:
        if not objects[image['id']]:
            yield _finding('empty', name, f'{image["file_name"]} has no object', image['file_name'])


def _find_in_images(data: DataFolder, contents: Mapping[str, dict], image_size: tuple[int, int],
                    quick: bool) -> list[Finding]:
    """Returns the findings about image files; all of them are read."""
    findings: list[Finding] = []
    entries: list[tuple[str, dict, Path]] = []
    for name, split in data.splits.items():
        missing = set(find_missing_images(contents[name]['images'], str(split.images)))
        findings += [_finding('missing_image', name, f'{file} is not in {split.images}', file)
                     for file in sorted(missing)]
        entries += [(name, image, split.images / image['file_name']) for image in contents[name]['images']
                    if image['file_name'] not in missing]
    facts = read_images([path for _, _, path in entries], quick)
    for name, image, path in entries:
        findings += _check_image(name, image, path, facts[path], str(data.splits[name].annotations), image_size)

    unusable = {item.file for item in findings if item.kind in _UNUSABLE and item.split == 'train'}
    total = len(contents['train']['images']) if 'train' in contents else 0
    if 2 * len(unusable) > total:
        findings.append(_finding('unusable', 'train', f'{len(unusable)} of {total} training images are unusable '
                                 f'({listed(sorted(unusable))}); training stops once most are'))
    for twin in find_twins([facts[path] for _, _, path in entries], [name for name, _, _ in entries]):
        (here, image, _), (there, other, _) = entries[twin.index], entries[twin.other]
        kind = ('' if twin.exact else 'near_') + ('duplicate' if here == there else 'leak')
        one, two = image['file_name'], other['file_name']
        if here != there:
            one, two = f'{one} of {here}', f'{two} of {there}'
        sentence = f'{one} is {"" if twin.exact else "nearly "}the same picture as {two}'
        findings.append(Finding(kind, KINDS[kind].severity, here, shown(sentence), image['file_name'],
                                other=(there, other['file_name'])))
    findings += _find_unlisted(data, contents, quick)
    return findings


def _check_image(split: str, image: dict, path: Path, facts: ImageFacts, annotations: str,
                 image_size: tuple[int, int]) -> Iterator[Finding]:
    """Yields what is wrong with an image; one that training would replace ends a validation."""
    def unusable(kind: str, sentence: str) -> Finding:
        return _finding(kind, split, sentence, file, None if split == 'train' else ERROR)

    file = image['file_name']
    if facts.size is None:
        yield unusable('unreadable', facts.fault)
        return
    width, height = facts.size
    try:
        check_frame((height, width), image, str(path), annotations)
    except UnreadableImageError as error:
        yield unusable('size_differs', str(error))
    if 0 in rescale_size(facts.size, image_size):
        yield unusable('too_thin', f'image {path} ({width}x{height}) cannot be used: scaled, one of its sides has 0 '
                                   f'pixels')
    elif max(width, height) >= _ELONGATED * min(width, height):
        yield _finding('elongated', split, f'{file} has {width} x {height} pixels', file)
    if facts.oddity:
        kind = 'deep' if facts.oddity in _DEEP else 'channels'
        yield _finding(kind, split, f'{file}: {facts.oddity}', file)


def _find_unlisted(data: DataFolder, contents: Mapping[str, dict], quick: bool) -> Iterator[Finding]:
    """Yields image files in the image folders that no split lists; of other formats than COCO, damaged ones are."""
    folders: dict[str, list[str]] = {}
    for name, split in data.splits.items():
        folders.setdefault(os.path.realpath(split.images), []).append(name)
    named = {os.path.realpath(split.images / image['file_name']) for name, split in data.splits.items()
             for image in contents[name]['images']}
    unlisted: dict[Path, str] = {}
    for folder in sorted(folders):  # those inside others come later, and their own splits are named
        for path in Listing().images(Path(folder)):
            if os.path.realpath(path) not in named:
                unlisted[path] = folder
    facts = read_images(list(unlisted), quick) if data.format != 'COCO' else {}
    for path, folder in unlisted.items():
        owner = folders[folder][0] if len(folders[folder]) == 1 else ''
        file = str(path.relative_to(folder))
        if path in facts and facts[path].size is None:
            yield _finding('unreadable', owner, f'{facts[path].fault}; it is left out', file)
        else:
            yield _finding('unlisted', owner, f'{path} is not listed', file)


def _summarise(split: Split, content: dict, classes: Sequence[str], image_size: tuple[int, int]) -> SplitSummary:
    objects = by_image(content)
    return SplitSummary(
        shown(split.annotations), shown(split.images), len(content['images']),
        sum(not objects[image['id']] for image in content['images']),
        sum(not item.get('iscrowd') for item in content['annotations']),
        **count_objects(content, classes, image_size))
