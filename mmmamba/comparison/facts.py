"""The conditions of a comparison in words, for its report."""
from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import mmdet
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config

from mmmamba.demo.config import coco_datasets
from mmmamba.version import __version__


def facts(configs: Mapping[str, Config], data: str, seeds: Sequence[int], *, scratch: bool) -> dict[str, str]:
    """What all runs have in common, and the epochs and optimizers of each where they differ.

    Args:
        configs: The detectors' configs under the comparison's conditions, by name; at least one.
        data: Name of the data set.
        seeds: Of the runs.
        scratch: Whether pretrained weights were left out.
    """
    cfg = next(iter(configs.values()))
    train = DATASETS.build(cfg.train_dataloader.dataset)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU ({platform.machine()})'
    return {
        'data set': f'{Path(data).name}: {len(train)} images for training, {_test_images(cfg)} for testing, '
                    f'{len(train.metainfo["classes"])} classes',
        'image size': ' x '.join(map(str, cfg.img_scale)),
        'epochs': _by_config({name: str(config.train_cfg.max_epochs) for name, config in configs.items()}),
        'images in a batch': str(cfg.train_dataloader.batch_size),
        'optimizer': _by_config({name: _optimizer(config) for name, config in configs.items()}),
        'initial weights': 'random' if scratch else "the configs' (pretrained, where they name any)",
        'seeds': ', '.join(map(str, seeds)),
        'tested': 'the last weights of each run, not the best',
        'trained on': f'{device}, {cfg.optim_wrapper.get("dtype", "float32")}',
        'versions': f'mmmamba {__version__}, PyTorch {torch.__version__}, mmdet {mmdet.__version__}, '
                    f'Python {platform.python_version()}',
    }


def _by_config(values: Mapping[str, str]) -> str:
    """One value, where all are the same; else each with its names."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    if len(names) == 1:
        return next(iter(names))
    return '; '.join(f'{value} ({", ".join(owners)})' for value, owners in names.items())


def _optimizer(cfg: Config) -> str:
    optimizer = cfg.optim_wrapper.optimizer
    return f'{optimizer.type}, learning rate {optimizer.lr:g}, weight decay {optimizer.weight_decay:g}'


def _test_images(cfg: Config) -> int:
    return len(DATASETS.build(next(coco_datasets(cfg.test_dataloader.dataset))))
