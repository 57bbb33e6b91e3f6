"""How many epochs fit into a number of minutes."""
from __future__ import annotations

import copy
import json
import math
import statistics
from pathlib import Path

from mmdet.registry import DATASETS
from mmengine.config import Config

from mmmamba.comparison.plan import with_seed
from mmmamba.comparison.reading import read_records
from mmmamba.comparison.run import Launch, Run
from mmmamba.demo.config import coco_datasets
from mmmamba.errors import InputError
from mmmamba.files import write_json

TRIAL_ITERATIONS = 8


def epochs_within(minutes: float, cfg: Config, folder: Path, launch: Launch | None) -> int:
    """Epochs of training, without validation, that take about so many minutes of wall clock; at least 1.

    A few iterations are timed, and the median of them taken for all: a schedule has to know its length beforehand.
    What was measured stands in ``budget.json`` and is not measured again.

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
