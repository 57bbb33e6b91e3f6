"""What holds for every config that our tools run."""
from __future__ import annotations

import os
import signal
import sys

import pytest
from mmengine.config import Config

from mmmamba.engine import (
    CheckedRunner,
    ClassCountHook,
    ConfigOnResumeHook,
    EncodedMasksHook,
    FusedLayersHook,
    SameBuffersHook,
    UnreadableImagesHook,
)
from mmmamba.engine.runner import _except_lost_connections

import toy_training  # isort: skip  (this folder's)

OF_WORKERS = [dict(persistent_workers=True), dict(prefetch_factor=4), dict(timeout=30),
              dict(multiprocessing_context='fork'),
              dict(persistent_workers=True, prefetch_factor=2, timeout=5, pin_memory=False)]


def loader_config(data, **settings) -> Config:
    loader = toy_training.config(data, data).train_dataloader
    loader.pop('persistent_workers')
    loader.update(settings)
    return loader


@pytest.mark.usefixtures('mmdet_scope')
@pytest.mark.parametrize('settings', OF_WORKERS)
def test_without_workers_their_settings_do_not_matter(settings, shared_coco_folder):
    for workers in ({'num_workers': 0}, {'num_workers': 1}):
        cfg = loader_config(shared_coco_folder, **settings, **workers)
        before = cfg.to_dict()
        loader = CheckedRunner.build_dataloader(cfg, seed=1)
        assert len(next(iter(loader))['inputs']) == 4
        assert cfg.to_dict() == before
        if workers['num_workers']:
            assert all(getattr(loader, name) == value for name, value in settings.items()
                       if name != 'multiprocessing_context')


@pytest.mark.usefixtures('mmdet_scope')
@pytest.mark.skipif(sys.platform != 'linux', reason='the system has no such signal')
def test_data_workers_end_with_a_process_that_is_killed(shared_coco_folder):
    """PyTorch's notice it after 5 seconds, in which other processes of the run believe that it is still there."""
    cfg = loader_config(shared_coco_folder, num_workers=1, persistent_workers=True)
    loader = CheckedRunner.build_dataloader(cfg, seed=1)
    ends, output = os.pipe()  # whose end is seen when no process has it
    process = os.fork()
    if process == 0:
        list(loader)
        os.write(output, b'ready')
        signal.pause()
    os.close(output)
    toy_training.assert_dies_with(process, ends, seconds=2)


def test_a_data_worker_does_not_print_that_its_process_has_gone(capsys):
    for error, printed in ((BrokenPipeError(), ''), (EOFError(), ''), (ValueError('wrong'), 'ValueError: wrong\n')):
        _except_lost_connections(type(error), error, None)
        assert capsys.readouterr().err == printed


def test_needed_hooks_are_there_once(shared_coco_folder, tmp_path):
    for hooks in ((), (dict(type='ClassCountHook'), dict(type='ConfigOnResumeHook'))):
        cfg = toy_training.config(shared_coco_folder, tmp_path, workers=0, hooks=hooks)
        cfg.experiment_name = f'needed_{len(hooks)}'
        runner = CheckedRunner.from_cfg(cfg)
        for needed in (ClassCountHook, ConfigOnResumeHook, EncodedMasksHook, FusedLayersHook, SameBuffersHook,
                       UnreadableImagesHook):
            assert sum(isinstance(hook, needed) for hook in runner.hooks) == 1


@pytest.mark.parametrize('switch_epoch, warns', [(0, False), (1, True), (280, True)])
def test_a_pipeline_that_is_never_switched_to_is_named(switch_epoch, warns, shared_coco_folder, tmp_path):
    cfg = toy_training.config(shared_coco_folder, tmp_path, workers=0, epochs=1)
    next(hook for hook in cfg.custom_hooks if hook.type == 'PipelineSwitchHook').switch_epoch = switch_epoch
    cfg.experiment_name = f'switch_{switch_epoch}'
    runner, said = CheckedRunner.from_cfg(cfg), []
    runner.logger.warning = said.append
    runner.train()
    assert any(f'switch_epoch is {switch_epoch}, train_cfg.max_epochs 1' in words for words in said) == warns
