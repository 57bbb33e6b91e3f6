"""A folder of images with COCO annotations as a data set, and how a config is pointed at it."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmmamba.datasets.coco_checks import read_annotations
from mmmamba.errors import InputError
from mmmamba.model_config import set_num_classes

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


def config_for_folder(config: Config, folder: CocoFolder) -> Config:
    """Returns ``config`` for another data set: files, classes, the heads' class count and the evaluators.

    Args:
        config: With a train, a val and a test dataloader of CocoDatasets, and CocoMetric as evaluator.
        folder: The data set; the test split is its val.
    """
    config = Config(config.to_dict())
    for split, loader in (('train', 'train_dataloader'), ('val', 'val_dataloader'), ('val', 'test_dataloader')):
        for dataset in coco_datasets(config[loader].dataset):
            dataset.update(data_root='', ann_file=str(folder.annotations[split].absolute()),
                           data_prefix={'img': f'{(folder.root / split).absolute()}/'},
                           metainfo={'classes': folder.classes})
    for evaluator in (config.val_evaluator, config.test_evaluator):
        evaluator.ann_file = str(folder.annotations['val'].absolute())
    set_num_classes(config.model, len(folder.classes))
    return config


def coco_datasets(dataset: ConfigDict) -> Iterator[ConfigDict]:
    """Yields the data sets with an annotation file, inside whatever wrappers."""
    if 'ann_file' in dataset:
        yield dataset
    for inner in [dataset.get('dataset'), *dataset.get('datasets', [])]:
        if inner is not None:
            yield from coco_datasets(inner)
