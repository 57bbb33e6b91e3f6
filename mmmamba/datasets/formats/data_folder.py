"""A data set of the user's, whatever format its files have, and how a config is pointed at it."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmmamba.errors import InputError, process_rank
from mmmamba.model_config import set_num_classes


@dataclass(frozen=True)
class Split:
    """A part of a data set, as a COCO file: the user's own, or one that was converted into the cache.

    Args:
        annotations: The file.
        images: The folder that its file names are relative to.
    """
    annotations: Path
    images: Path


@dataclass(frozen=True)
class DataFolder:
    """A data set as it was found.

    Args:
        root: What the user named: a folder or a file.
        format: ``'COCO'``, ``'YOLO'`` or ``'VOC'``.
        splits: ``'train'`` and ``'val'``, and ``'test'`` if there is one.
        classes: Their names, in the order of the labels.
        remarks: How it was taken, and what was left out, if anything: a line each, for the user.
    """
    root: Path
    format: str
    splits: Mapping[str, Split]
    classes: tuple[str, ...]
    remarks: tuple[str, ...] = ()


@cache
def _print_once(lines: tuple[str, ...]) -> None:
    print('\n'.join(lines), flush=True)


def announce(data: DataFolder) -> None:
    """Prints how a data set was taken, once, in the first of the processes that a launcher has started."""
    if not process_rank():
        _print_once(tuple(f'data: {line}' for line in data.remarks))


def config_for_data(config: Config, data: DataFolder, test_split: str = 'val') -> Config:
    """Returns ``config`` for another data set: files, classes, the heads' class count and the evaluators.

    Args:
        config: With a train, a val and a test dataloader of CocoDatasets, and CocoMetric as evaluator.
        data: The data set.
        test_split: The split that tests are made on.

    Raises:
        InputError: The data set has no such split.
    """
    if test_split not in data.splits:
        raise InputError(f'{data.root} has no split {test_split}: it has {", ".join(data.splits)}')
    config = Config(config.to_dict())
    for name, loader in (('train', 'train_dataloader'), ('val', 'val_dataloader'), (test_split, 'test_dataloader')):
        split = data.splits[name]
        for dataset in coco_datasets(config[loader].dataset):
            dataset.update(data_root='', ann_file=str(split.annotations.absolute()),
                           data_prefix={'img': f'{split.images.absolute()}/'}, metainfo={'classes': data.classes})
            if dataset.type == 'CheckedCocoDataset':
                dataset.by_name = True
    for name, evaluator in (('val', config.val_evaluator), (test_split, config.test_evaluator)):
        evaluator.ann_file = str(data.splits[name].annotations.absolute())
    set_num_classes(config.model, len(data.classes))
    return config


def coco_datasets(dataset: ConfigDict) -> Iterator[ConfigDict]:
    """Yields the data sets with an annotation file, inside whatever wrappers."""
    if 'ann_file' in dataset:
        yield dataset
    for inner in [dataset.get('dataset'), *dataset.get('datasets', [])]:
        if inner is not None:
            yield from coco_datasets(inner)
