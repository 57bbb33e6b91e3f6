"""Where a run's numbers go besides its own files: TensorBoard, Weights & Biases, MLflow."""
from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from mmengine.config import Config, ConfigDict

from mmmamba.errors import InputError

_PROJECT = 'mmmamba'
_FOR_MLFLOW = ('train_cfg', 'optim_wrapper', 'param_scheduler', 'randomness', 'load_from')


def _tensorboard(cfg: Config) -> dict:
    return dict(type='TensorboardVisBackend')


def _wandb(cfg: Config) -> dict:
    return dict(type='WandbVisBackend', init_kwargs=dict(project=_PROJECT, name=Path(cfg.work_dir).name))


def _mlflow(cfg: Config) -> dict:
    # Of a config's parameters, whose number MLflow limits, those that people compare; its text goes along as a file.
    settings = dict(type='MLflowVisBackend', exp_name=_PROJECT, run_name=Path(cfg.work_dir).name,
                    tracked_config_keys=[key for key in _FOR_MLFLOW if key in cfg])
    server = os.environ.get('MLFLOW_TRACKING_URI')
    if server:
        return dict(settings, tracking_uri=server)
    # mmengine would choose a folder of files, which MLflow no longer takes.
    return dict(settings, tracking_uri=f'sqlite:///{Path(cfg.work_dir, "mlflow.db")}',
                artifact_location=Path(cfg.work_dir, 'mlflow').absolute().as_uri())


LOGGERS = MappingProxyType({'tensorboard': _tensorboard, 'wandb': _wandb, 'mlflow': _mlflow})
"""Name, which is its package's, → the visualisation backend of mmengine for a config."""


def use_loggers(cfg: Config, names: Sequence[str]) -> None:
    """Adds loggers to the visualisation backends of a config, in place.

    Args:
        cfg: With a ``work_dir``, after which the run is named.
        names: Of :data:`LOGGERS`.

    Raises:
        InputError: A package is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(f'--logger {name} needs the package {name}: pip install {name}')
        backend = LOGGERS[name](cfg)
        if not cfg.get('visualizer'):
            cfg.visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='StrictLocalVisBackend')])
        present = cfg.visualizer.get('vis_backends') or []
        if not any(other['type'] == backend['type'] for other in present):
            cfg.visualizer.vis_backends = [*present, ConfigDict(backend)]
