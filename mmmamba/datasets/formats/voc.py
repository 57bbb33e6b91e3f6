"""Data sets in Pascal VOC's format: an XML file an image, with lists of the splits, folders of them, or neither."""
from __future__ import annotations

import ntpath
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from mmmamba.datasets.coco_checks import is_number
from mmmamba.datasets.formats.conversion import LabelledObject, Labels, Remarks, Source, finite_number
from mmmamba.datasets.formats.listing import Listing, is_image
from mmmamba.datasets.formats.safe_xml import Element, read_xml
from mmmamba.errors import InputError, first_names

_NAME_FILES = ('classes.txt', 'labels.txt', 'labelmap.txt')
_BACKGROUND = 'background'


def voc_evidence(root: Path, listing: Listing) -> str | None:
    """Returns the folder that tells that a folder is a data set in VOC's format; None if none does."""
    for home in _homes(root, listing):
        for folder in (home, *listing.splits(home).values()):
            marked = _xml_folder(folder, listing)
            if marked:
                return f'{marked.relative_to(root)}/' if marked != root else 'XML files'
    return None


def find_voc(path: Path, evidence: str, listing: Listing) -> Source:
    """Finds the images and the XML files of a data set.

    An XML file is that of the image with the same name; if there are several of that name, or none, its element
    ``filename`` decides. Images without an XML file were not annotated, and are left out.

    Args:
        path: A folder, or the folder ``Annotations`` in it.
        evidence: See :func:`voc_evidence`.
        listing: What is looked at.

    Raises:
        InputError: A list names an image that has no XML file or is not there, or an XML file is malformed.
    """
    root = path.parent if path.name.lower() == 'annotations' else path
    homes = [home for home in _homes(root, listing)
             if any(_xml_folder(folder, listing) for folder in (home, *listing.splits(home).values()))]
    if len(homes) > 1:
        raise InputError(f'{root} holds several data sets: {first_names(homes)}; name one of them')
    home = homes[0]
    names = _class_names(home, listing) or _class_names(root, listing)
    source = Source(path, 'VOC', evidence, listing, {}, VocLabels(listing, names), names)
    folders = {split: folder for split, folder in listing.splits(home).items() if _xml_folder(folder, listing)}
    if _xml_folder(home, listing):
        folders = {'train': home}
    if 'train' not in folders:
        raise InputError(f'{home}: there are XML files for {" and ".join(folders)}, and none in train/')
    source.splits = {split: _pairs(folder, source) for split, folder in folders.items()}
    lists = _lists(home, listing)
    if lists and list(folders) == ['train']:
        source.splits = {split: _listed(list_path, source.splits['train'], listing)
                         for split, list_path in lists.items()}
        source.notes.append('splits are those of ImageSets/Main')
    return source


class VocLabels:
    """Reads XML files as mmdet's XMLDataset does.

    Coordinates are cut to whole numbers and 1 is subtracted from each, since VOC counts pixels from 1: a box from xmin
    to xmax has its left side at xmin - 1 and is xmax - xmin wide. Objects marked as difficult are ignored in training
    and not asked for in evaluation, as crowds are.

    Args:
        listing: Reads the files.
        known: The classes; None if there is no file with their names, so that any will do.
    """

    def __init__(self, listing: Listing, known: Collection[int | str] | None) -> None:
        self.listing, self.known = listing, known

    def __call__(self, path: Path, size: tuple[int, int], remarks: Remarks) -> Labels:
        """Returns a file's objects; see :class:`mmmamba.datasets.formats.conversion.ReadLabels`.

        Raises:
            InputError: The file is malformed; the line is named.
        """
        top = read_xml(path.read_bytes(), path)
        objects = [self._object(item, path) for item in top.all('object')]
        return Labels(objects, _size(top, path))

    def _object(self, item: Element, path: Path) -> LabelledObject:
        where = f'{path}, line {item.line}'
        name = _text(item, 'name', where)
        if self.known is not None and name not in self.known:
            raise InputError(f'{where}: the class {name!r} is not among those of the list of classes: '
                             f'{first_names(list(self.known), 20)}')
        corners = item.get('bndbox')
        if corners is None:
            raise InputError(f'{where}: the object {name!r} has no bndbox')
        where = f'{path}, line {corners.line}'
        left, top, right, bottom = (int(_number(corners, side, where)) - 1
                                    for side in ('xmin', 'ymin', 'xmax', 'ymax'))
        difficult = item.get('difficult') is not None and _number(item, 'difficult', where) != 0
        return LabelledObject(name, (left, top, right, bottom), where, crowd=difficult)


def _text(parent: Element, tag: str, where: str) -> str:
    element = parent.get(tag)
    text = element.text.strip() if element is not None else ''
    if not text:
        raise InputError(f'{where}: {parent.tag} has no {tag}')
    return text


def _number(parent: Element, tag: str, where: str) -> float:
    text = _text(parent, tag, where)
    value = finite_number(text)
    if value is None:
        raise InputError(f'{where}: {tag} is {text!r:.80}, not a number')
    return value


def _size(top: Element, path: Path) -> tuple[int, int] | None:
    """Returns width and height as the file says them; None if it does not, or says 0 as some tools do."""
    size = top.get('size')
    if size is None:
        return None
    where = f'{path}, line {size.line}'
    width, height = (int(_number(size, side, where)) for side in ('width', 'height'))
    if not (is_number(width) and is_number(height)):
        raise InputError(f"{where}: the size {width:.3g} x {height:.3g} is not an image's")
    return (width, height) if width > 0 and height > 0 else None


def _homes(root: Path, listing: Listing) -> Iterator[Path]:
    """Yields the folders that a data set may be in: that named, or one of VOCdevkit and the years in it."""
    yield root
    if _xml_folder(root, listing) is None:
        devkit = listing.folder_named(root, 'vocdevkit') or root
        yield from (devkit / name for name in listing.folders(devkit) if name.lower().startswith('voc20'))


def _xml_folder(folder: Path, listing: Listing) -> Path | None:
    """Returns where the XML files of a folder are: in its Annotations, or in itself; None if it has none."""
    for candidate in (listing.folder_named(folder, 'annotations', 'labels', 'xml', 'xmls'), folder):
        if candidate and any(listing.by_stem(inner, '.xml') for inner in (
                [folder] if candidate == folder else listing.walk(candidate))):
            return candidate
    return None


def _pairs(folder: Path, source: Source) -> dict[Path, Path | None]:
    """Returns the annotated images of a folder, and their XML files."""
    listing = source.listing
    marked = _xml_folder(folder, listing)
    pictures = listing.folder_named(folder, 'jpegimages', 'images', 'imgs') or folder
    found: dict[Path, Path | None] = {}
    for inner in listing.walk(marked) if marked != folder else [folder]:
        for stem, name in listing.by_stem(inner, '.xml').items():
            own = pictures / inner.relative_to(marked)
            image = _image_of(inner / name, stem, dict.fromkeys((own, pictures)), listing)
            if image is None:
                source.remarks.add('XML files without an image', inner / name)
            elif image in found:
                raise InputError(f'{found[image]} and {inner / name} are both of the image {image}: remove one')
            else:
                found[image] = inner / name
    for image in listing.images(pictures) if pictures != folder else [
            folder / name for name in listing.files(folder) if is_image(name)]:
        if image not in found:
            source.remarks.add('images left out, which have no XML file', image)
    return {image: found[image] for image in sorted(found)}


def _image_of(path: Path, stem: str, folders: Mapping[Path, None], listing: Listing) -> Path | None:
    """Returns the image of an XML file; None if there is none."""
    several: list[Path] = []
    for folder in folders:
        several = [folder / name for name in listing.images_by_stem(folder).get(stem, [])]
        if several:
            break
    if len(several) == 1:
        return several[0]
    element = read_xml(path.read_bytes(), path).get('filename')
    name = ntpath.basename(element.text.strip()) if element is not None else ''
    if several:
        if name not in {image.name for image in several}:
            raise InputError(f'{path} may be of {" or ".join(image.name for image in several)}: write into its '
                             f'filename which')
        return next(image for image in several if image.name == name)
    return next((folder / name for folder in folders if is_image(name) and name in listing.files(folder)), None)


def _lists(home: Path, listing: Listing) -> dict[str, Path]:
    """Returns the lists of ImageSets/Main; train is that of train and val together where these are not told apart."""
    sets = listing.folder_named(home, 'imagesets')
    folder = sets and (listing.folder_named(sets, 'main') or sets)
    files = listing.by_stem(folder, '.txt') if folder else {}
    found = {split: folder / files[name] for split, name in (('train', 'train'), ('val', 'val'), ('test', 'test'))
             if name in files}
    if 'train' not in found and 'trainval' in files:
        found['train'] = folder / files['trainval']
        found.pop('val', None)
    return found if 'train' in found else {}


def _listed(path: Path, pairs: Mapping[Path, Path | None], listing: Listing) -> dict[Path, Path | None]:
    """Returns the images of a list in ImageSets/Main: a line has a name without ending, and 1, -1 or 0 may follow."""
    by_stem = {label.stem: image for image, label in pairs.items()}
    found: dict[Path, Path | None] = {}
    for number, line in enumerate(listing.text(path).splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        if name not in by_stem and name.split()[-1] in ('1', '-1', '0'):  # a name may end like this itself
            name = name.rpartition(name.split()[-1])[0].strip()
        stem = name if name in by_stem else os.path.splitext(ntpath.basename(name))[0]
        if stem not in by_stem:
            raise InputError(f'{path}, line {number}: {name:.80} has no XML file, or that has no image')
        found[by_stem[stem]] = pairs[by_stem[stem]]
    return {image: found[image] for image in sorted(found)}


def _class_names(folder: Path, listing: Listing) -> dict[int | str, str] | None:
    """Returns the classes of a file with one a line, in their order; CVAT's labelmap.txt has colours after a colon."""
    files = {name.lower(): name for name in listing.files(folder)}
    for usual in _NAME_FILES:
        if usual in files:
            lines = [line.strip() for line in listing.text(folder / files[usual]).splitlines()]
            if usual == 'labelmap.txt':
                lines = [line.partition(':')[0] for line in lines if not line.startswith('#')]
            names = [name for name in lines if name and not (usual == 'labelmap.txt' and name == _BACKGROUND)]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise InputError(f'{folder / files[usual]}: the class {twice!r} is listed twice')
            return {name: name for name in names} or None
    return None
