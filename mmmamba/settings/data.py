"""Settings of data sets and their loaders: folder, classes, batch, workers."""
from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict

from mmmamba.datasets.formats import coco_datasets
from mmmamba.errors import InputError, did_you_mean, first_names
from mmmamba.model_config import set_num_classes

TEST_LOADERS = ('val_dataloader', 'test_dataloader')
LOADERS = ('train_dataloader', *TEST_LOADERS)


def class_names(cfg: Config) -> tuple[str, ...]:
    """Returns the classes of a config's test set: its ``metainfo``, or those of the data set's type."""
    dataset = next(coco_datasets(cfg.test_dataloader.dataset))
    given = dataset.get('metainfo') or {}
    return tuple(given.get('classes') or DATASETS.get(dataset.type).METAINFO['classes'])


def with_classes(cfg: Config, names: Sequence[str]) -> Config:
    """Returns a config for some of its classes: objects of the others are not there.

    Data sets and heads follow. Labels are in the data set's order, whatever the order of ``names``.

    Raises:
        InputError: No name, one twice, or one that the data set does not have; it names close ones.
    """
    known = class_names(cfg)
    unknown = [name for name in names if name not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known, otherwise=f'; its classes are {first_names(known, 20)}')
        raise InputError(f'the data set has no class {unknown[0]!r}{hint}')
    if not names or len(set(names)) < len(names):
        raise InputError(f'classes must be named, each once, got {", ".join(names) or "none"}')
    chosen = [index for index, name in enumerate(known) if name in names]
    metainfo: dict[str, Any] = dict(classes=tuple(known[index] for index in chosen))
    palette = (next(coco_datasets(cfg.test_dataloader.dataset)).get('metainfo') or {}).get('palette')
    if palette and len(palette) == len(known):
        metainfo['palette'] = [palette[index] for index in chosen]
    return with_metainfo(cfg, metainfo)


def with_metainfo(cfg: Config, metainfo: dict) -> Config:
    """Returns a config whose data sets have this ``metainfo``, and whose heads have as many classes as it names."""
    cfg = copy.deepcopy(cfg)
    for dataset in _datasets(cfg):
        dataset.metainfo = copy.deepcopy(metainfo)
    if 'metainfo' in cfg:
        cfg.metainfo = copy.deepcopy(metainfo)
    if 'classes' in metainfo and 'model' in cfg:
        set_num_classes(cfg.model, len(metainfo['classes']))
    return cfg


def with_data_root(cfg: Config, root: str) -> Config:
    """Returns a config that reads another folder: data sets, and every path below the old folder.

    Raises:
        InputError: Its data sets are in several folders, so that it is not known which is meant.
    """
    roots = {str(dataset.data_root).rstrip('/') for dataset in _datasets(cfg) if dataset.get('data_root')}
    if len(roots) != 1:
        raise InputError(f'data_root cannot be carried over to the data sets, which are in '
                         f'{" and ".join(sorted(roots)) or "no folder"}: set it in each of them')
    old, = roots
    end = '' if root.endswith('/') or not root else '/'

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                value[key] = moved(value[key])
        elif isinstance(value, (list, tuple)):
            return type(value)(map(moved, value))
        elif isinstance(value, str) and value.rstrip('/') == old:
            return root
        elif isinstance(value, str) and value.startswith(f'{old}/'):
            return f'{root}{end}{value[len(old):].lstrip("/")}'
        return value

    cfg = copy.deepcopy(cfg)
    for key in cfg:
        if key != 'model':
            cfg[key] = moved(cfg[key])
    return cfg


def with_batch_size(cfg: Config, images: int, loaders: Sequence[str] = ('train_dataloader',)) -> Config:
    """Returns a config with this many images in a batch of a process.

    Raises:
        InputError: Fewer than one.
    """
    if images < 1:
        raise InputError(f'a batch must have at least one image, got {images}')
    cfg = copy.deepcopy(cfg)
    for loader in loaders:
        cfg[loader].batch_size = images
    return cfg


def with_workers(cfg: Config, workers: int) -> Config:
    """Returns a config whose data loaders have this many processes each; with 0, images are loaded in between.

    Raises:
        InputError: A negative number.
    """
    if workers < 0:
        raise InputError(f'the number of workers must not be negative, got {workers}')
    cfg = copy.deepcopy(cfg)
    for loader in _loaders(cfg):
        loader.num_workers = workers
        if not workers:
            loader.persistent_workers = False
            loader.pop('prefetch_factor', None)
    return cfg


def _loaders(cfg: Config) -> Iterator[ConfigDict]:
    return (cfg[name] for name in LOADERS if cfg.get(name))


def _datasets(cfg: Config) -> Iterator[ConfigDict]:
    """Yields the data sets of all loaders that have annotation files."""
    for loader in _loaders(cfg):
        yield from coco_datasets(loader.dataset)
