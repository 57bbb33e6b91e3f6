"""Data sets in COCO's format, where they lie."""
from __future__ import annotations

from pathlib import Path

from mmmamba.datasets.coco_checks import read_annotations
from mmmamba.datasets.formats.data_folder import DataFolder, Split
from mmmamba.errors import InputError

LAYOUT = 'train/ and val/ with images, annotations/train.json and annotations/val.json (or instances_*.json)'


def find_coco(root: Path) -> DataFolder:
    """Looks at a folder.

    Raises:
        InputError: If something is missing, in a line that names it and the layout that is expected; or the
            training annotations are malformed.
    """
    splits = {}
    for name in ('train', 'val'):
        if not (root / name).is_dir():
            raise InputError(f'{root / name}: no such folder (expected: {LAYOUT})')
        candidates = [root / 'annotations' / f'{prefix}{name}.json' for prefix in ('', 'instances_')]
        found = [path for path in candidates if path.is_file()]
        if not found:
            raise InputError(f'{candidates[0]}: no such file (expected: {LAYOUT})')
        splits[name] = Split(found[0], root / name)
    categories = read_annotations(str(splits['train'].annotations), for_evaluation=False)['categories']
    return DataFolder(root, 'COCO', splits, tuple(item['name'] for item in categories))
