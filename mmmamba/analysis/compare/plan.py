"""What the runs of a comparison are: their config, their length, the truth; and all of that in words."""
from __future__ import annotations

import copy
import inspect
import json
import math
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import mmdet
import torch
from mmdet.registry import DATASETS, OPTIM_WRAPPERS
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper

from mmmamba.analysis.compare.runs import Launch, Run, read_records
from mmmamba.analysis.measure import environment
from mmmamba.datasets.formats import DataFolder, coco_datasets
from mmmamba.errors import InputError
from mmmamba.files import write_atomically, write_json
from mmmamba.model_config import merge_options
from mmmamba.recipes import find_folder, from_scratch, under_recipe
from mmmamba.settings import load_config, with_epochs

VALIDATIONS = 10
"""About so many points has a curve of AP."""
TRIAL_ITERATIONS = 8


def run_config(path: Path, data: str, truth: Path, *, epochs: int | None, scratch: bool,
               options: Mapping[str, Any], settings: Callable[[Config], Config] = lambda cfg: cfg) -> Config:
    """Makes a detector's config under the conditions of a comparison; all seeds and all detectors get the same.

    The last weights are tested, not the best ones: choosing by the test set would flatter whoever fluctuates most.

    Args:
        path: The detector's config.
        data: See :func:`mmmamba.recipes.under_recipe`.
        truth: Where the test set's annotations are written, if they are not in COCO's format.
        epochs: Length of the training; None for that of the data set's recipe.
        scratch: Whether pretrained weights are left out.
        options: Settings instead of the conditions', by their dotted names.
        settings: Changes the data set's recipe, for all detectors alike: the image size, say.

    Raises:
        InputError: The options change the number of epochs or the seed; or as ``under_recipe``.
    """
    cfg = settings(under_recipe(load_config(path), _looked_at(data)))
    if epochs is not None:
        cfg = with_epochs(cfg, epochs)
    if scratch:
        cfg = from_scratch(cfg)
    length = cfg.train_cfg.max_epochs
    cfg.train_cfg.val_interval = max(1, length // VALIDATIONS)
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1, save_best=None)
    cfg.randomness = {name: value for name, value in cfg.get('randomness', {}).items() if name != 'seed'}
    merge_options(cfg, copy.deepcopy(dict(options)))
    if cfg.train_cfg.max_epochs != length:
        raise InputError('the length of the training is set by --epochs, which shortens the schedule with it')
    if 'seed' in cfg.randomness:
        raise InputError('seeds are set by --seeds')
    cfg.custom_hooks += [dict(type='TrainingClockHook'), dict(type='MissedValidationHook')]
    use_coco_metric(cfg, truth)
    return cfg


@cache
def _looked_at(data: str) -> str | DataFolder:
    """Looks at a data set of the user's once, so that all detectors get the same, and large ones are read once."""
    return find_folder(data) or data


def with_seed(text: str, seed: int) -> str:
    """Returns the text of a config that ``run_config`` made, with a seed."""
    return f'{text}\nrandomness.update(seed={seed})\n'


def epochs_within(minutes: float, cfg: Config, folder: Path, launch: Launch | None) -> int:
    """Finds the epochs of training, without validation, that take about so many minutes of wall clock; at least 1.

    A few iterations are timed, and the median of them taken for all: a schedule has to know its length beforehand.
    What was measured is kept in ``budget.json`` and is not measured again.

    Args:
        minutes: Positive.
        cfg: A config under the comparison's conditions.
        folder: Of the detector's runs.
        launch: Where to run the trial; None, where nothing shall be run.

    Raises:
        InputError: The trial failed, or is missing and shall not be run; the line says why.
    """
    record, trial = folder / 'budget.json', Run(folder.name, 0, folder / 'trial')
    batch = cfg.train_dataloader.batch_size
    if record.is_file() or launch:
        trial.prepare(with_seed(_trial_config(cfg, TRIAL_ITERATIONS * batch).pretty_text, trial.seed))
    if not record.is_file():
        if launch is None:
            raise InputError('its iterations have not been timed yet')
        if not trial.train(launch):
            raise InputError(trial.failure or 'the trial was stopped')
        records = read_records(trial.folder / 'train')
        seconds = statistics.median(record['time'] for record in records if 'loss' in record)
        images = len(DATASETS.build(cfg.train_dataloader.dataset))
        write_json(record, dict(seconds_per_iteration=seconds, iterations_per_epoch=math.ceil(images / batch)))
    measured = json.loads(record.read_text(encoding='utf-8'))
    return max(1, int(60 * minutes / (measured['seconds_per_iteration'] * measured['iterations_per_epoch'])))


def _trial_config(cfg: Config, images: int) -> Config:
    cfg = copy.deepcopy(cfg)
    for dataset in coco_datasets(cfg.train_dataloader.dataset):
        dataset.indices = images
    cfg.train_cfg.update(max_epochs=1, val_begin=2)  # no validation
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'PipelineSwitchHook']
    cfg.default_hooks.logger.interval = 1
    cfg.log_processor.window_size = 1
    return cfg


def use_coco_metric(cfg: Config, truth: Path) -> None:
    """Evaluates a config by COCO's AP, on a translation of its test set where that has another format.

    Objects that are to be ignored, VOC's difficult ones, become crowds.

    Args:
        cfg: Changed in place: both evaluators, where they are not CocoMetric.
        truth: The file to which a translation is written.
    """
    if cfg.test_evaluator.type == 'CocoMetric':
        return
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    images: list[dict] = []
    annotations: list[dict] = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        name = Path(info['img_path']).relative_to(dataset.data_root)
        images.append(dict(id=info['img_id'], file_name=str(name), width=info['width'], height=info['height']))
        for instance in info['instances']:
            left, top, right, bottom = instance['bbox']
            width, height = right - left, bottom - top
            annotations.append(dict(
                id=len(annotations) + 1, image_id=info['img_id'], category_id=instance['bbox_label'] + 1,
                bbox=[left, top, width, height], area=width * height, iscrowd=instance['ignore_flag']))
    categories = [dict(id=label, name=name) for label, name in enumerate(dataset.metainfo['classes'], start=1)]
    write_atomically(truth, json.dumps(
        dict(images=images, annotations=annotations, categories=categories)).encode())
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=str(truth), metric='bbox', proposal_nums=(100, 1, 10))
    cfg.test_evaluator = dict(cfg.val_evaluator)


def truth_of(cfg: Config) -> tuple[Path, Path]:
    """Returns the annotation file of a config's test set, and the folder of its images.

    Args:
        cfg: With CocoMetric among its evaluators.
    """
    dataset = next(coco_datasets(cfg.test_dataloader.dataset))
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    annotations = next(evaluator.ann_file for evaluator in evaluators if evaluator.get('ann_file'))
    return Path(annotations), Path(dataset.get('data_root') or '', dataset.get('data_prefix', {}).get('img', ''))


def facts(configs: Mapping[str, Config], data: str, seeds: Sequence[int], *, scratch: bool,
          jobs: int) -> dict[str, str]:
    """Tells what all runs have in common, and where they differ, what each has. Reads the data sets.

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
    """Writes one value if all are the same; else each with its names."""
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
