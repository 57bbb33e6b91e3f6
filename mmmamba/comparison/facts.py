"""The conditions of a comparison in words, for its report."""
from __future__ import annotations

import inspect
import platform
from collections.abc import Mapping, Sequence

import mmdet
import torch
from mmdet.registry import DATASETS, OPTIM_WRAPPERS
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper

from mmmamba.analysis.measure import environment
from mmmamba.demo.config import coco_datasets


def facts(configs: Mapping[str, Config], data: str, seeds: Sequence[int], *, scratch: bool,
          jobs: int) -> dict[str, str]:
    """What all runs have in common, and where they differ, what each has. Reads the data sets.

    Args:
        configs: The detectors' configs under the comparison's conditions, by name; at least one.
        data: Name of the data set.
        seeds: Of the runs.
        scratch: Whether pretrained weights were left out.
        jobs: Runs at a time.
    """
    cfg = next(iter(configs.values()))
    train = DATASETS.build(cfg.train_dataloader.dataset)
    test = DATASETS.build(next(coco_datasets(cfg.test_dataloader.dataset)))
    averaged = any(hook['type'] == 'EMAHook' for hook in cfg.custom_hooks)
    where = environment('cuda' if torch.cuda.is_available() else 'cpu', torch.get_num_threads())
    return {
        'data set': f'{data}: {len(train)} images for training, {len(test)} for testing and for the curves, '
                    f'{len(train.metainfo["classes"])} classes',
        'image size': _image_size(cfg),
        'epochs': _by_config({name: str(config.train_cfg.max_epochs) for name, config in configs.items()}),
        'images in a batch': str(cfg.train_dataloader.batch_size),
        'optimizer': _by_config({name: _optimizer(config) for name, config in configs.items()}),
        'initial weights': 'random' if scratch else "the configs' (pretrained, where they name any)",
        'tested': f'the last weights{", as a moving average," if averaged else ""} and not the best',
        'post-processing': _by_config({name: _post_processing(config) for name, config in configs.items()}),
        'seeds': ', '.join(map(str, seeds)),
        'runs at a time': str(jobs),
        'precision': _by_config({name: _precision(config) for name, config in configs.items()}),
        'this report was written on': f'{where["device"]}, with mmmamba {where["mmmamba"]}, PyTorch {where["torch"]}, '
                                      f'mmdet {mmdet.__version__}, Python {platform.python_version()}',
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
    settings = dict(cfg.optim_wrapper.optimizer)
    text = f'{settings["type"]}, learning rate {settings["lr"]:g}'
    decay = settings.get('weight_decay', 0)
    for hook in cfg.custom_hooks:
        if hook['type'] == 'ScaleWeightDecayHook':  # the configured one is for a batch of that size
            decay *= cfg.train_dataloader.batch_size / hook['base_batch_size']
    return f'{text}, weight decay {decay:g}'


def _precision(cfg: Config) -> str:
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    wrapper = OPTIM_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    if wrapper is None or not issubclass(wrapper, AmpOptimWrapper):
        return 'float32'
    default = inspect.signature(wrapper).parameters.get('dtype')
    dtype = cfg.optim_wrapper.get('dtype') or (default and default.default)
    # mmengine's wrapper refuses CPUs; without a dtype it leaves the choice to autocast, which takes float16 on GPUs.
    return f'mixed, {dtype or "float16"}'


def _post_processing(cfg: Config) -> str:
    settings = cfg.model.get('test_cfg') or {}
    settings = settings.get('rcnn', settings)
    said = [('score above', settings.get('score_thr')), ('NMS at IoU', settings.get('nms', {}).get('iou_threshold')),
            ('boxes at most', settings.get('max_per_img'))]
    return ', '.join(f'{what} {value}' for what, value in said if value is not None) or 'none'


def _image_size(cfg: Config) -> str:
    resize = next(step for step in cfg.test_dataloader.dataset.pipeline if step['type'] == 'Resize')
    return ' x '.join(map(str, resize['scale']))
