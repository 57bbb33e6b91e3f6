"""Labels of YOLO's and VOC's files as COCO annotations: the same objects give the same file."""
from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mmmamba.datasets.coco_checks import is_text
from mmmamba.datasets.formats import cache
from mmmamba.datasets.formats.data_folder import DataFolder, Split
from mmmamba.datasets.formats.image_sizes import read_sizes
from mmmamba.datasets.formats.listing import Listing, name_order
from mmmamba.errors import InputError, first_names

VERSION = 2
"""Of what is written into the cache: another one makes conversions anew."""
VAL_SHARE = 0.2
"""Part of the images that becomes val where a data set has none."""
DECIMALS = 4
"""Of pixel coordinates."""


def finite_number(text: str) -> float | None:
    """Returns the number that a label file has as text; None if it is none, or infinite."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class LabelledObject(NamedTuple):
    """An object as a label file has it.

    Args:
        key: Of its class: YOLO's number or VOC's name.
        box: Left, top, right, bottom, in pixels.
        where: File and line, for messages.
        polygon: x, y, x, y, …, in pixels; none for a box alone.
        crowd: Whether training ignores it, and evaluation asks for no detection of it.
    """
    key: int | str
    box: tuple[float, float, float, float]
    where: str
    polygon: tuple[float, ...] = ()
    crowd: bool = False


class Labels(NamedTuple):
    """What a label file says.

    Args:
        objects: In the file's order.
        size: Width and height that the objects were marked in, where the file says it.
    """
    objects: list[LabelledObject]
    size: tuple[int, int] | None = None


class Remarks:
    """What was done to the data, counted, with the place where it was done first."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, what: str, where: object) -> None:
        """Counts something, such as ``'boxes clipped to their image'``."""
        self._counts[what] = self._counts.get(what, 0) + 1
        self._first.setdefault(what, str(where))

    def lines(self) -> tuple[str, ...]:
        """Returns a single line, or none."""
        parts = [f'{what}: {count} ({self._first[what]}{", …" if count > 1 else ""})'
                 for what, count in self._counts.items()]
        return ('; '.join(parts), ) if parts else ()


class ReadLabels(Protocol):
    """Reads a label file."""

    def __call__(self, path: Path, size: tuple[int, int], remarks: Remarks) -> Labels:
        """Returns what the file says.

        Args:
            path: The file.
            size: Of its image: width and height, in pixels.
            remarks: What is left out is counted here.
        """


@dataclass
class Source:
    """The files of a data set in another format, before they are read.

    Args:
        root: What the user named.
        format: ``'YOLO'`` or ``'VOC'``.
        evidence: The file or the folder that told the format.
        listing: All that was looked at.
        splits: Images, and the label file of each; None where there is none. Without ``'val'``, one is drawn.
        read: Reads a label file.
        classes: Name of each key; None if the objects decide, in the order of their keys.
        notes: On how the data set was taken, to follow the first line.
        remarks: What was left out so far.
    """
    root: Path
    format: str
    evidence: str
    listing: Listing
    splits: dict[str, dict[Path, Path | None]]
    read: ReadLabels
    classes: Mapping[int | str, str] | None
    notes: list[str] = field(default_factory=list)
    remarks: Remarks = field(default_factory=Remarks)


class FaultyLabelsError(InputError):
    """Label files are malformed, or a split has no image: the message has the first of the faults.

    Args:
        format: ``'YOLO'`` or ``'VOC'``.
        faults: Split → a line for each of its faults.
    """

    def __init__(self, format: str, faults: Mapping[str, Sequence[str]]) -> None:
        first, *others = (line for found in faults.values() for line in found)
        more = f' (and {len(others)} more error{"s" * (len(others) > 1)}: check-data names them)' if others else ''
        super().__init__(f'{first}{more}')
        self.format, self.faults = format, faults


class _Entry(NamedTuple):
    name: str
    size: tuple[int, int]
    objects: list[LabelledObject]


def convert(source: Source, seed: int) -> DataFolder:
    """Converts a data set into the cache, unless it is there, and returns it.

    Images are in the order of their names, in which numbers count as such, relative to the folder that all images of a
    split are in. Boxes are clipped to their image, and those of which nothing is left are dropped.

    Args:
        source: The files.
        seed: Of the draw of val, where there is none.

    Raises:
        FaultyLabelsError: Label files of train or val are malformed, or one has no image; test would be left out.
        InputError: There is no image at all, or no object.
    """
    if not any(source.splits.values()):
        raise InputError(f'{source.root}: there is no image in this data set ({source.format}: {source.evidence})')
    name = source.listing.digest(VERSION, str(source.root.absolute()), source.format, source.evidence, seed)
    folder = cache.keep(name, lambda: _contents(source, seed))
    record = json.loads((folder / 'data.json').read_text(encoding='utf-8'))
    splits = {split: Split(folder / f'{split}.json', Path(images)) for split, images in record['splits'].items()}
    return DataFolder(source.root, source.format, splits, tuple(record['classes']), tuple(record['remarks']))


def _contents(source: Source, seed: int) -> dict[str, Any]:
    """Reads the data set, and returns the files for the cache."""
    remarks, notes = source.remarks, list(source.notes)
    images, entries = _read(source, notes)
    objects = [item for split in entries.values() for entry in split for item in entry.objects]
    found = {item.key for item in objects}
    if not found:
        raise InputError(f'{source.root}: none of its images has an object ({source.format}: {source.evidence}); '
                         f'are the labels where the layout has them? See docs/data.md')
    classes = source.classes or {key: str(key) for key in sorted(found)}
    _note_mixture(objects, remarks)
    contents = {split: to_coco(found, classes, remarks) for split, found in entries.items()}
    if 'val' not in contents:
        images['val'] = images['train']
        contents['train'], contents['val'], how = draw_val(contents['train'], seed)
        notes.append(how)
    counts = {split: len(content['images']) for split, content in contents.items()}
    names = list(classes.values())
    lines = (summary(f'{source.format} ({source.evidence})', counts, names, notes), *remarks.lines())
    return {**{f'{split}.json': content for split, content in contents.items()},
            'data.json': {'splits': images, 'classes': names, 'remarks': lines}}


def _read(source: Source, notes: list[str]) -> tuple[dict[str, str], dict[str, list[_Entry]]]:
    """Returns the folder that holds the images of each split, and what their labels say."""
    images: dict[str, str] = {}
    entries: dict[str, list[_Entry]] = {}
    faults: dict[str, list[str]] = {split: [] for split in source.splits}
    for split, labels in source.splits.items():
        if labels:
            images[split] = os.path.commonpath([path.parent.absolute() for path in labels])
            entries[split] = _entries(labels, images[split], source, faults[split])
        if not faults[split] and not entries.get(split):
            faults[split].append(f'{source.root}: there is no image for {split} that can be read ({source.format}: '
                                 f'{source.evidence})')
    of_test = faults.pop('test', [])
    if of_test:
        notes.append(f'test is left out: {FaultyLabelsError(source.format, {"test": of_test})}')
        entries.pop('test', None)
    if any(faults.values()):
        raise FaultyLabelsError(source.format, faults)
    return {split: images[split] for split in entries}, entries


def _note_mixture(objects: Sequence[LabelledObject], remarks: Remarks) -> None:
    """Notes the rarer kind of objects in a set of boxes and polygons: it may be a slip, and a box has no mask."""
    polygons = [item for item in objects if item.polygon]
    boxes = [item for item in objects if not item.polygon]
    if polygons and boxes:
        fewer = min(polygons, boxes, key=len)
        what = 'polygons among boxes' if fewer is polygons else 'boxes among polygons, which have no mask'
        for item in fewer:
            remarks.add(what, item.where)


def _entries(labels: Mapping[Path, Path | None], root: str, source: Source, faults: list[str]) -> list[_Entry]:
    """Reads the sizes and the labels of a split's images; what is wrong with label files goes to ``faults``."""
    remarks, entries = source.remarks, []
    for path, size in zip(labels, read_sizes(list(labels))):
        label = labels[path]
        if size is None:
            remarks.add('images left out, which cannot be read', path)
            continue
        try:
            found = source.read(label, size, remarks) if label else Labels([])
        except InputError as error:
            faults.append(str(error))
            continue
        if found.size and found.size != size:
            remarks.add('images of another size than their labels say, which training leaves out', path)
        name = os.path.relpath(path.absolute(), root).replace(os.sep, '/')
        if not is_text(name):
            faults.append(f'{str(path)!r}: its name has a line break or a tab, or is not Unicode: rename the image')
        entries.append(_Entry(name, found.size or size, found.objects))
    return sorted(entries, key=lambda entry: name_order(entry.name))


def to_coco(entries: Sequence[_Entry], classes: Mapping[int | str, str], remarks: Remarks) -> dict[str, Any]:
    """Returns the content of a COCO file; ids count from 1.

    Args:
        entries: The images.
        classes: Name of each key.
        remarks: Boxes that were clipped and dropped are counted here.
    """
    ids = {key: number for number, key in enumerate(classes, start=1)}
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, entry in enumerate(entries, start=1):
        width, height = entry.size
        images.append({'id': image_id, 'file_name': entry.name, 'width': width, 'height': height})
        for item in entry.objects:
            geometry = _geometry(item, width, height, remarks)
            if geometry:
                annotations.append({'id': len(annotations) + 1, 'image_id': image_id, 'category_id': ids[item.key],
                                    **geometry, 'iscrowd': int(item.crowd)})
    categories = [{'id': ids[key], 'name': name} for key, name in classes.items()]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def _geometry(item: LabelledObject, width: int, height: int, remarks: Remarks) -> dict[str, Any] | None:
    """Returns box, area and polygon inside the image; None if nothing is there."""
    left, right = (min(max(side, 0), width) for side in item.box[::2])
    top, bottom = (min(max(side, 0), height) for side in item.box[1::2])
    if right <= left or bottom <= top:
        remarks.add('boxes dropped, without area or outside their image', item.where)
        return None
    if (left, top, right, bottom) != item.box:
        remarks.add('boxes clipped to their image', item.where)
    box = [tidy(value) for value in (left, top, right - left, bottom - top)]
    if not item.polygon:
        return {'bbox': box, 'area': tidy(box[2] * box[3])}
    xs = [min(max(x, 0), width) for x in item.polygon[::2]]
    ys = [min(max(y, 0), height) for y in item.polygon[1::2]]
    area = abs(sum(x * (after - before) for x, before, after in zip(xs, [ys[-1], *ys], [*ys[1:], ys[0]]))) / 2
    points = [tidy(value) for point in zip(xs, ys) for value in point]
    return {'bbox': box, 'area': tidy(area), 'segmentation': [points]}


def tidy(value: float) -> float:
    """Rounds a coordinate; a whole number of pixels becomes an int, so that files of all formats say it alike."""
    value = round(value, DECIMALS)
    return int(value) if value == int(value) else value


def draw_val(content: Mapping[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Draws val from a COCO file's images: a fifth of those with objects and a fifth of those without.

    An image's own name decides, so that formats, platforms and versions agree, and images that are added later move
    hardly any other. Of a single image, or a single one with objects, both parts are made.

    Args:
        content: Of the file.
        seed: Of the draw.

    Returns:
        Train and val, both in the order of their images' names, and how they were made, in words.
    """
    images = sorted(content['images'], key=lambda image: name_order(image['file_name']))
    with_objects = {item['image_id'] for item in content['annotations']}
    drawn: set[int] = set()
    for has in (True, False):
        kind = [image for image in images if (image['id'] in with_objects) == has]
        count = max(round(VAL_SHARE * len(kind)), int(has))
        kind.sort(key=lambda image: _chance(image['file_name'], seed))
        drawn.update(image['id'] for image in kind[:count])
    val = [image for image in images if image['id'] in drawn]
    if len(with_objects) < 2:
        return _part(content, images), _part(content, val), 'the only image with objects is in train and in val'
    train = [image for image in images if image['id'] not in drawn]
    return _part(content, train), _part(content, val), f'val is drawn from train by seed {seed}'


def _part(content: Mapping[str, Any], images: Sequence[dict]) -> dict[str, Any]:
    """Returns a content of some of the images and their annotations, in the order of these images."""
    order = {image['id']: position for position, image in enumerate(images)}
    annotations = [item for item in content['annotations'] if item['image_id'] in order]
    annotations.sort(key=lambda item: order[item['image_id']])
    return {**content, 'images': list(images), 'annotations': annotations}


def _chance(name: str, seed: int) -> str:
    own = name.replace('\\', '/').rpartition('/')[2]
    return hashlib.sha256(f'{seed}/{own}'.encode(errors='surrogatepass')).hexdigest()


def summary(taken: str, counts: Mapping[str, int], classes: Sequence[str], notes: Sequence[str]) -> str:
    """Returns the line that says how a data set was taken.

    Args:
        taken: The format, and what told it.
        counts: Images of each split.
        classes: Their names.
        notes: What else there is to say about the taking.
    """
    numbers = [str(counts['train']), str(counts['val']), *(f'{counts["test"]} (test)' for _ in {'test'} & set(counts))]
    kinds = f'{len(classes)} class{"es" if len(classes) > 1 else ""} ({first_names(classes, 8)})'
    return '; '.join([f'{taken}, {" + ".join(numbers)} images, {kinds}', *notes])
