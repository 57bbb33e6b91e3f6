"""The folder layout that the demo trains on: its own data set has it, and a user's may."""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mmmamba.errors import InputError

LAYOUT = 'train/ and val/ with images, annotations/train.json and annotations/val.json (or instances_*.json)'


@dataclass(frozen=True)
class CocoFolder:
    """A data set in COCO's format.

    Args:
        root: Its folder.
        annotations: split → annotation file.
        classes: Category names in the order of the training annotations.
    """
    root: Path
    annotations: dict[str, Path]
    classes: tuple[str, ...]

    @classmethod
    def find(cls, root: Path) -> CocoFolder:
        """Looks at a folder.

        Raises:
            InputError: If something is missing; the line names it and the layout that is expected.
        """
        annotations = {}
        for split in ('train', 'val'):
            if not (root / split).is_dir():
                raise InputError(f'{root / split}: no such folder (expected: {LAYOUT})')
            candidates = [root / 'annotations' / f'{prefix}{split}.json' for prefix in ('', 'instances_')]
            found = [path for path in candidates if path.is_file()]
            if not found:
                raise InputError(f'{candidates[0]}: no such file (expected: {LAYOUT})')
            annotations[split] = found[0]
        return cls(root, annotations, _read_classes(annotations['train']))


def _read_classes(path: Path) -> tuple[str, ...]:
    try:
        categories = json.loads(path.read_text(encoding='utf-8'))['categories']
        classes = tuple(str(item['name']) for item in categories)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path}: not an annotation file in COCO format ({error!r})') from error
    if not classes:
        raise InputError(f'{path}: its list of categories is empty')
    return classes
