"""The folder layout that the demo trains on: its own data set has it, and a user's may."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmmamba.datasets.coco_checks import read_annotations
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
            InputError: If something is missing, in a line that names it and the layout that is expected; or the
                training annotations are malformed.
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
        categories = read_annotations(str(annotations['train']), for_evaluation=False)['categories']
        return cls(root, annotations, tuple(item['name'] for item in categories))
