"""Data sets in COCO's format, where they lie: the user's own files, unless something in them has to be corrected."""
from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mmmamba.datasets.coco_checks import check_annotations, read_json
from mmmamba.datasets.formats import cache
from mmmamba.datasets.formats.coco_repairs import drop_roboflow_root, image_names, repair
from mmmamba.datasets.formats.conversion import VERSION, draw_val, summary
from mmmamba.datasets.formats.data_folder import DataFolder, Split
from mmmamba.datasets.formats.listing import Listing, split_named
from mmmamba.errors import InputError

LAYOUT = 'train/ and val/ with images, annotations/train.json and annotations/val.json (or instances_*.json)'
_HEAD = 1 << 16
_DRAWN = 'drawn'
_LISTS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')


def coco_evidence(root: Path, listing: Listing) -> str | None:
    """Returns the file that tells that a folder is a data set in COCO's format; None if none does.

    Args:
        root: The folder.
        listing: What is looked at.
    """
    files = _files(root, listing)
    return str(files['train'].relative_to(root)) if 'train' in files else None


def find_coco(path: Path, listing: Listing, seed: int) -> DataFolder:
    """Finds annotation files and images; val is drawn from train where there is neither.

    Files are used where they are. A copy in the cache is used instead where val is drawn, or where something in a file
    has one meaning only and what reads it later would refuse it: see :mod:`mmmamba.datasets.formats.coco_repairs`.

    Args:
        path: A folder, or a single annotation file.
        listing: What is looked at.
        seed: Of the draw.

    Raises:
        InputError: If something is missing, in a line that names it and the layout that is expected; or the
            annotations are malformed.
    """
    root, files = _locate(path, listing)
    if 'train' not in files:
        raise InputError(f'{root / "annotations" / "train.json"}: no such file (expected: {LAYOUT})')
    if 'val' not in files and not path.is_file():
        _refuse_forgotten_val(root, listing)
    try:
        return _take(path, root, files, listing, seed)
    except InputError as error:
        if 'test' not in files:
            raise
        found = _take(path, root, {split: files[split] for split in files if split != 'test'}, listing, seed)
        return replace(found, remarks=(*found.remarks, f'test is left out: {error}'))


def guess_coco(path: Path) -> dict[str, Split]:
    """Returns what there is of a data set that :func:`find_coco` refuses: files, and the folders of their images."""
    if path.is_file() and path.suffix.lower() != '.json':  # YOLO's data.yaml
        return {}
    listing = Listing()
    root, files = _locate(path, listing)
    splits = {}
    for split, file in files.items():
        content = {}
        with suppress(InputError):
            content = read_json(str(file), 'utf-8-sig')
        with suppress(InputError):
            splits[split] = Split(file, _image_folder(root, file, split, content, listing))
    return splits


def _locate(path: Path, listing: Listing) -> tuple[Path, dict[str, Path]]:
    """Returns the data set's folder, and the annotation files of its splits."""
    if not path.is_file():
        return path, _files(path, listing)
    return path.parent.parent if path.parent.name.lower() == 'annotations' else path.parent, {'train': path}


def _take(path: Path, root: Path, files: Mapping[str, Path], listing: Listing, seed: int) -> DataFolder:
    """Reads, corrects and checks the files of the splits."""
    contents = {split: read_json(str(file), 'utf-8-sig') for split, file in files.items()}
    notes: list[str] = []
    folders = {split: _image_folder(root, files[split], split, content, listing)
               for split, content in contents.items()}
    corrected: dict[str, list[str]] = {split: [] for split in contents}
    for split in drop_roboflow_root(contents):
        corrected[split].append("Roboflow's class of all classes is left out")
    for split, content in contents.items():
        corrected[split] += repair(content, files[split], folders[split])
        check_annotations(content, str(files[split]), for_evaluation=split == 'val')
    names = [item['name'] for item in contents['train']['categories']]
    if 'val' not in contents:
        contents['train'], contents['val'], how = draw_val(contents['train'], seed)
        folders['val'] = folders['train']
        corrected['train'].append(_DRAWN)
        corrected['val'] = [_DRAWN]
        notes.append(how)
    changed = {f'{split}.json': contents[split] for split in contents if corrected[split]}
    # Names and sizes may be those of images in folders that were not listed.
    images = [(image['file_name'], image['width'], image['height'])
              for content in changed.values() for image in content['images']]
    name = listing.digest(VERSION, str(path.absolute()), 'COCO', seed, images)
    kept = cache.keep(name, lambda: changed) if changed else None
    splits = {split: Split(kept / f'{split}.json' if corrected[split] else files[split], folders[split])
              for split in contents}
    counts = {split: len(content['images']) for split, content in contents.items()}
    taken = f'COCO ({", ".join(str(file.relative_to(root)) for file in files.values())})'
    corrections = list(dict.fromkeys(what for parts in corrected.values() for what in parts if what != _DRAWN))
    if corrections:
        notes.append(f'corrected in a copy: {", ".join(corrections)}')
    return DataFolder(path, 'COCO', splits, tuple(names), (summary(taken, counts, names, notes), ))


def _files(root: Path, listing: Listing) -> dict[str, Path]:
    """Returns the annotation files of the splits, or the only one there is as that of train.

    Of several for one split, those in ``annotations/`` come first, then those without ``instances_``, then the newest
    year's.
    """
    annotations = listing.folder_named(root, 'annotations')
    candidates = [folder / name for folder in (annotations, root) if folder
                  for name in sorted(listing.by_stem(folder, '.json').values(), reverse=True)]
    candidates = [path for path in candidates if path.parent == annotations or _looks_like_coco(path)]
    found: dict[str, Path] = {}
    for prefix in ('', 'instances_'):
        for path in candidates:
            stem = path.stem.lower()
            split = split_named(stem[len(prefix):]) if stem.startswith(prefix) else None
            if split:
                found.setdefault(split, path)
    for split, folder in listing.splits(root).items():
        inside = [folder / name for name in listing.by_stem(folder, '.json').values()]
        roboflow = [path for path in inside if path.name == '_annotations.coco.json']
        if roboflow or len(inside) == 1 and _looks_like_coco(inside[0]):
            found.setdefault(split, (roboflow or inside)[0])
    if not found and len(candidates) == 1 and _looks_like_coco(candidates[0]):
        return {'train': candidates[0]}
    return {split: found[split] for split in ('train', 'val', 'test') if split in found}


def _looks_like_coco(path: Path) -> bool:
    """Tells from its beginning whether a JSON file is one of COCO's; others may be large, and are not read."""
    with open(path, 'rb') as file:
        return _LISTS.search(file.read(_HEAD)) is not None


def _refuse_forgotten_val(root: Path, listing: Listing) -> None:
    for folder in (root, listing.folder_named(root, 'images')):
        forgotten = folder and listing.splits(folder).get('val')
        if forgotten:
            raise InputError(f'{root / "annotations" / "val.json"}: no such file, although there is {forgotten} '
                             f'(expected: {LAYOUT})')


def _image_folder(root: Path, file: Path, split: str, content: Mapping, listing: Listing) -> Path:
    """Returns the folder that the file names of a split are relative to: the first that has some of the images.

    If none has any, what reads the images later says which are missing; it is told to look into the usual folder.
    """
    pictures = listing.folder_named(root, 'images', 'jpegimages')
    usual: list[Path] = []
    for folder in (root, pictures):
        if folder:
            stem = file.stem.lower().replace('instances_', '')
            named = listing.folder_named(folder, stem) or listing.splits(folder).get(split)
            usual += [named] if named else []
    usual += [inner for folder in usual for inner in [listing.folder_named(folder, 'images')] if inner]
    usual += [pictures] if pictures else []
    names = image_names(content)
    probes: Sequence[str] = [names[index] for index in sorted({0, len(names) // 2, len(names) - 1})] if names else []
    for tails in (False, True):
        for folder in dict.fromkeys((*usual, file.parent, root)):
            if any(_is_there(folder, name, tails) for name in probes):
                return folder
    if not usual:
        raise InputError(f'{root / split}: no such folder (expected: {LAYOUT})')
    return usual[0]


def _is_there(folder: Path, name: str, tails: bool) -> bool:
    parts = name.replace('\\', '/').split('/')
    if '..' in parts or name.startswith('/') and not tails:
        return False
    starts = range(len(parts)) if tails else [0]
    # Path.is_file would raise on a name that is too long.
    return os.path.isfile(folder / name) or any(os.path.isfile(folder.joinpath(*parts[start:])) for start in starts)
