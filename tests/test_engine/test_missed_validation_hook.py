"""A validation that a run was stopped before is made up for when it is resumed."""
from __future__ import annotations

from types import SimpleNamespace
from uuid import uuid4

import pytest
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner

from mmmamba.engine import MissedValidationHook

import toy_training  # isort: skip  (this folder's)


@pytest.mark.parametrize('epoch, begin, validates', [
    (0, 0, False), (1, 0, False), (2, 1, True), (4, 4, True), (5, 1, True), (4, 5, False), (5, 6, False)])
def test_it_validates_where_a_validation_is_due(epoch, begin, validates):
    validated = []
    runner = SimpleNamespace(train_loop=SimpleNamespace(epoch=epoch, val_begin=begin, val_interval=2, max_epochs=5),
                             val_loop=SimpleNamespace(run=lambda: validated.append(epoch)))
    MissedValidationHook().before_train(runner)
    assert bool(validated) == validates


@METRICS.register_module()
class EpochMetric(BaseMetric):
    """A metric whose value is how often it was computed."""

    def process(self, data_batch, data_samples) -> None:
        self.results.append(None)

    def compute_metrics(self, results) -> dict:
        self.times = getattr(self, 'times', 0) + 1
        return {'times': float(self.times)}


@pytest.mark.parametrize('epochs', [2, 3])  # the training has come to its end, or goes on
@pytest.mark.parametrize('settings', [
    dict(checkpoint=dict(save_best='times', rule='greater')),
    dict(checkpoint=dict(save_best='times', rule='greater', type='CheckpointHook')),
    dict(logger=dict(type='LoggerHook', interval=1)),
])
def test_validating_finds_every_other_hook_ready(settings, epochs, shared_coco_folder, tmp_path):
    def validations(**train_cfg) -> int:
        cfg = toy_training.config(shared_coco_folder, tmp_path, workers=0, plain=True, epochs=epochs,
                                  hooks=(dict(type='MissedValidationHook'), dict(type='TrainingClockHook')))
        cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type != 'PipelineSwitchHook']
        cfg.merge_from_dict(dict(default_hooks=settings))
        cfg.train_cfg.update(train_cfg)
        cfg.val_dataloader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                                  dataset=cfg.train_dataloader.dataset)
        cfg.val_cfg, cfg.val_evaluator = dict(), dict(type='EpochMetric')
        cfg.resume, cfg.experiment_name = (tmp_path / 'last_checkpoint').is_file(), uuid4().hex
        runner = Runner.from_cfg(cfg)
        runner.train()
        return getattr(runner.val_evaluator.metrics[0], 'times', 0)

    assert validations(max_epochs=2, val_begin=9) == 0  # as if it had been stopped before the validation
    assert validations(max_epochs=epochs) == epochs - 1
    assert list(tmp_path.glob('best_times*.pth')) or 'logger' in settings
