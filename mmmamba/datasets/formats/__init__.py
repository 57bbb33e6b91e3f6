"""Data sets as they lie: whatever format they have becomes COCO annotations, and no file of the user's changes."""
from __future__ import annotations

from pathlib import Path

from mmmamba.datasets.formats.coco import LAYOUT, coco_evidence, find_coco, guess_coco
from mmmamba.datasets.formats.conversion import FaultyLabelsError, convert
from mmmamba.datasets.formats.data_folder import DataFolder, Split, announce, coco_datasets, config_for_data
from mmmamba.datasets.formats.listing import Listing
from mmmamba.datasets.formats.voc import find_voc, voc_evidence
from mmmamba.datasets.formats.yolo import find_yolo, yolo_evidence
from mmmamba.errors import InputError

__all__ = ['DataFolder', 'FaultyLabelsError', 'Split', 'announce', 'coco_datasets', 'config_for_data', 'find_data',
           'guess_coco']
_EXPECTED = (f'COCO: {LAYOUT}; YOLO: data.yaml, or images/ and labels/; VOC: JPEGImages/ and Annotations/; '
             'see docs/data.md')


def find_data(path: Path, seed: int = 0) -> DataFolder:
    """Finds out which format a data set has, and returns it.

    Args:
        path: A folder; or a single COCO file, of which val is drawn; or YOLO's data.yaml; or VOC's ``Annotations``.
        seed: Of the draw of val, where a data set has none.

    Raises:
        InputError: It has no format that is known, or lacks something; one line says what.
    """
    path, listing = Path(path), Listing()
    if path.is_file():
        ending = path.suffix.lower()
        listing.files(path.parent)
        if ending == '.json':
            return find_coco(path, listing, seed)
        if ending in ('.yaml', '.yml'):
            return convert(find_yolo(path, path.name, listing), seed)
        raise InputError(f"{path}: a data set is a folder, a COCO file (.json) or YOLO's data.yaml")
    if not path.is_dir():
        raise InputError(f'{path}: no such folder (expected: {_EXPECTED})')
    if path.name.lower() == 'annotations' and listing.by_stem(path, '.xml'):
        return convert(find_voc(path, f'{path.name}/', listing), seed)
    evidence = {name: told for name, find in (('COCO', coco_evidence), ('YOLO', yolo_evidence), ('VOC', voc_evidence))
                for told in [find(path, listing)] if told}
    if 'COCO' in evidence:
        found = find_coco(path, listing, seed)
    elif 'YOLO' in evidence:
        found = convert(find_yolo(path, evidence['YOLO'], listing), seed)
    elif 'VOC' in evidence:
        found = convert(find_voc(path, evidence['VOC'], listing), seed)
    elif listing.folder_named(path, 'annotations'):
        found = find_coco(path, listing, seed)  # which says what it lacks
    else:
        raise InputError(f'{path}: there is no data set in it (expected: {_EXPECTED})')
    return _with_others(found, evidence)


def _with_others(found: DataFolder, evidence: dict[str, str]) -> DataFolder:
    """Says which other formats the folder seems to have."""
    others = [f'{name} ({told})' for name, told in evidence.items() if name != found.format]
    if not others:
        return found
    remark = (f'there is {" and ".join(others)} as well, which is not used: to take it, name its data.yaml or '
              f'Annotations/, or put it into a folder of its own')
    return DataFolder(found.root, found.format, found.splits, found.classes, (*found.remarks, remark))
