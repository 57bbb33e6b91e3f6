"""Which runs a comparison has, and under what config each of them goes."""
from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmmamba.comparison.truth import use_coco_metric
from mmmamba.conditions import from_scratch, under_conditions, with_epochs
from mmmamba.errors import InputError
from mmmamba.model_config import merge_options

VALIDATIONS = 10
"""About so many points has a curve of AP."""


def run_config(path: Path, data: str, configs: Path, truth: Path, *, epochs: int | None, scratch: bool,
               options: Mapping[str, Any]) -> Config:
    """A detector's config under the conditions of a comparison; all seeds and all detectors get the same.

    The last weights are tested, not the best ones: choosing by the test set would flatter whoever fluctuates most.

    Args:
        path: The detector's config.
        data: See :func:`mmmamba.conditions.under_conditions`.
        configs: The package's folder of configs.
        truth: Where the test set's annotations are written, if they are not in COCO's format.
        epochs: Length of the training; None for that of the data set's recipe.
        scratch: Whether pretrained weights are left out.
        options: Settings instead of the conditions', by their dotted names.

    Raises:
        InputError: The options change the number of epochs or the seed; or as ``under_conditions``.
    """
    cfg = under_conditions(Config.fromfile(path), data, configs)
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


def with_seed(text: str, seed: int) -> str:
    """The text of a config that ``run_config`` made, with a seed."""
    return f'{text}\nrandomness.update(seed={seed})\n'
