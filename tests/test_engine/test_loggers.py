"""Loggers that are named on the command line."""
from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace
from uuid import uuid4

import pytest
from mmengine.config import Config
from mmengine.registry import VISBACKENDS

from mmmamba.engine import CheckedRunner
from mmmamba.engine.loggers import LOGGERS, use_loggers
from mmmamba.errors import InputError

import toy_training  # isort: skip  (this folder's)


@pytest.fixture
def installed(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: SimpleNamespace(name=name))


@pytest.mark.usefixtures('installed')
def test_they_join_the_backends_of_the_config(monkeypatch):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://localhost:5000')
    cfg = Config(dict(work_dir='work_dirs/boats', train_cfg=dict(max_epochs=3),
                      visualizer=dict(type='Visualizer', vis_backends=[dict(type='StrictLocalVisBackend')])))
    for _ in range(2):
        use_loggers(cfg, [*LOGGERS])
    first, *added = cfg.visualizer.vis_backends
    assert first.type == 'StrictLocalVisBackend'
    assert [backend.type for backend in added] == ['TensorboardVisBackend', 'WandbVisBackend', 'MLflowVisBackend']
    assert added[1].init_kwargs.name == added[2].run_name == 'boats'
    assert added[2].tracking_uri == 'http://localhost:5000' and added[2].tracked_config_keys == ['train_cfg']
    monkeypatch.delenv('MLFLOW_TRACKING_URI')
    alone = LOGGERS['mlflow'](cfg)
    assert alone['tracking_uri'] == 'sqlite:///work_dirs/boats/mlflow.db'
    for backend in (*added, alone):
        VISBACKENDS.build({**backend, 'save_dir': 'unused'})  # its arguments are those that mmengine has


@pytest.mark.parametrize('name', LOGGERS)
def test_a_missing_package_is_one_line(name, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match=f'^--logger {name} needs the package {name}: pip install {name}$'):
        use_loggers(Config(dict(work_dir='boats')), [name])


@pytest.fixture
def tensorboard():
    """TensorBoard's modules, which are imported anew by whichever test needs them next."""
    before = set(sys.modules)
    yield pytest.importorskip('tensorboard')
    for name in set(sys.modules) - before:
        if name.startswith('torch.utils.tensorboard'):
            del sys.modules[name]


@pytest.mark.usefixtures('tensorboard')
def test_tensorboard_has_the_numbers(shared_coco_folder, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cfg = toy_training.config(shared_coco_folder, tmp_path, workers=0, plain=True, epochs=2)
    cfg.custom_hooks, cfg.experiment_name = [], uuid4().hex
    use_loggers(cfg, ['tensorboard'])
    CheckedRunner.from_cfg(cfg).train()
    events = EventAccumulator(str(next(tmp_path.glob('*/vis_data/events*')).parent))
    events.Reload()
    assert {'loss', 'lr', 'time'} <= set(events.Tags()['scalars'])
    assert [event.step for event in events.Scalars('loss')] == [4, 8]
