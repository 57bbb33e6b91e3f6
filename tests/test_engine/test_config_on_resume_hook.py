"""A resumed run follows its config, and says where that differs from the checkpoint's."""
from __future__ import annotations

import copy
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmmamba.engine import CheckedRunner
from mmmamba.engine.hooks import config_on_resume_hook
from mmmamba.engine.hooks.config_on_resume_hook import _changes
from mmmamba.errors import InputError

import toy_training  # isort: skip  (this folder's)

class Recorder(Hook):
    """Keeps what the optimizer's groups are set to in every iteration."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.decay: list[float] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        groups = runner.optim_wrapper.optimizer.param_groups
        self.rates.append([group['lr'] for group in groups])
        self.decay.append(max(group['weight_decay'] for group in groups))


MMENGINES = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=6),
             dict(type='MultiStepLR', by_epoch=True, milestones=[1, 3], gamma=0.1)]


def toy(data: Path, work_dir: Path, epochs: int = 4, **settings) -> Config:
    cfg = toy_training.config(data, work_dir, workers=0, plain=True, epochs=epochs)
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type != 'PipelineSwitchHook']
    cfg.merge_from_dict(copy.deepcopy(settings))
    return cfg


def train(cfg: Config, resume: Path | None = None) -> tuple[Recorder, CheckedRunner, list[str]]:
    """Returns what was recorded, the runner, and what it warned of."""
    cfg.experiment_name = uuid4().hex
    if resume:
        cfg.resume, cfg.load_from = True, str(resume)
    runner, recorder = CheckedRunner.from_cfg(cfg), Recorder()
    runner.register_hook(recorder)
    said: list[str] = []
    runner.logger.warning = said.append
    runner.train()
    return recorder, runner, said


@pytest.fixture(scope='module')
def two_epochs(shared_coco_folder, tmp_path_factory):
    """A function that returns the checkpoint after two epochs under some settings."""
    made: dict[str, Path] = {}

    def checkpoint(**settings) -> Path:
        key = repr(settings)
        if key not in made:
            work_dir = tmp_path_factory.mktemp('two')
            train(toy(shared_coco_folder, work_dir, **{'train_cfg.max_epochs': 2, **settings}))
            made[key] = work_dir / 'epoch_2.pth'
        return made[key]

    return checkpoint


CHANGES = {
    'rate': ({}, {'optim_wrapper.optimizer.lr': 0.001}, 'optim_wrapper.optimizer.lr 0.01 → 0.001'),
    'longer': ({}, {'train_cfg.max_epochs': 6}, 'train_cfg.max_epochs 2 → 6'),
    'schedule': ({}, {'param_scheduler.0.warmup_epochs': 1}, 'param_scheduler.0.warmup_epochs 2 → 1'),
    'decay': ({}, {'optim_wrapper.optimizer.weight_decay': 1e-3},
              'optim_wrapper.optimizer.weight_decay 0.0005 → 0.001'),
    'batch': ({}, {'train_dataloader.batch_size': 2}, 'train_dataloader.batch_size 4 → 2'),
    'amp': ({}, {'optim_wrapper.type': 'AutocastOptimWrapper', 'optim_wrapper.dtype': 'float16'},
            "optim_wrapper.type 'OptimWrapper' → 'AutocastOptimWrapper'"),
    'bfloat16 to float16': ({'optim_wrapper.type': 'AutocastOptimWrapper', 'optim_wrapper.dtype': 'bfloat16'},
                            {'optim_wrapper.type': 'AutocastOptimWrapper', 'optim_wrapper.dtype': 'float16'},
                            "optim_wrapper.dtype 'bfloat16' → 'float16'"),
    'scaled rate': ({}, {'auto_scale_lr': dict(enable=True, base_batch_size=16)},
                    'auto_scale_lr.enable not set → True'),
    'milestones': ({'param_scheduler': MMENGINES},
                   {'param_scheduler': [MMENGINES[0], {**MMENGINES[1], 'milestones': [1, 2]}]},
                   'param_scheduler.1.milestones.1 3 → 2'),
    'rate of chained schedules': ({'param_scheduler': MMENGINES},
                                  {'param_scheduler': MMENGINES, 'optim_wrapper.optimizer.lr': 0.3},
                                  'optim_wrapper.optimizer.lr 0.01 → 0.3'),
}


@pytest.mark.parametrize('name', CHANGES)
def test_settings_are_those_of_a_run_that_had_them_from_the_start(name, two_epochs, shared_coco_folder, tmp_path):
    old, new, line = CHANGES[name]
    settings = {'train_cfg.max_epochs': 4, **new}
    resumed, runner, said = train(toy(shared_coco_folder, tmp_path / 'resumed', **settings), resume=two_epochs(**old))
    whole, _, _ = train(toy(shared_coco_folder, tmp_path / 'whole', **settings))
    length = len(runner.train_dataloader)
    assert len(resumed.rates) == len(whole.rates) - 2 * length > 0
    for one, other in zip(resumed.rates, whole.rates[2 * length:]):
        assert one == pytest.approx(other, rel=1e-12)
    assert resumed.decay == pytest.approx(whole.decay[2 * length:], rel=1e-12)
    assert runner.iter == runner.max_iters
    named, = [words for words in said if 'Resumed with other settings' in words]
    assert line in named and '\n' not in named
    assert runner.optim_wrapper.optimizer.state  # momentum, which is the checkpoint's


def test_nothing_is_said_or_stepped_through_where_nothing_differs(two_epochs, shared_coco_folder, tmp_path,
                                                                  monkeypatch):
    monkeypatch.setattr(config_on_resume_hook, '_step_through', None)  # which takes minutes after 300 epochs of COCO
    _, _, said = train(toy(shared_coco_folder, tmp_path, **{
        'train_cfg.max_epochs': 2, 'train_dataloader.num_workers': 1, 'train_cfg.val_interval': 7}),
        resume=two_epochs())
    assert not [words for words in said if 'other settings' in words]


def test_a_configured_seed_holds(two_epochs, shared_coco_folder, tmp_path):
    _, runner, said = train(toy(shared_coco_folder, tmp_path, **{'randomness.seed': 9, 'train_cfg.max_epochs': 3}),
                            resume=two_epochs())
    assert runner.seed == 9 == runner.train_dataloader.sampler.seed
    assert any('randomness.seed 5 → 9' in words for words in said)


@pytest.mark.parametrize('settings', [{}, {'train_cfg.max_epochs': 1}])
def test_a_finished_run_says_how_to_go_on(settings, two_epochs, shared_coco_folder, tmp_path):
    recorder, _, said = train(toy(shared_coco_folder, tmp_path, **{'train_cfg.max_epochs': 2, **settings}),
                              resume=two_epochs())
    assert not recorder.rates
    last = said[-1]
    assert 'Nothing is left to train: the checkpoint has 2 epochs' in last
    assert 'raise it: --cfg-options train_cfg.max_epochs=N' in last


@pytest.mark.parametrize('settings, words', [
    ({'optim_wrapper.optimizer': dict(_delete_=True, type='AdamW', lr=0.01)},
     "optimizer is 'SGD', the config's 'AdamW'"),
    ({'optim_wrapper.constructor': 'DefaultOptimWrapperConstructor'}, "optimizer's constructor differs"),
])
def test_another_optimizer_is_refused(settings, words, two_epochs, shared_coco_folder, tmp_path):
    with pytest.raises(InputError) as error:
        train(toy(shared_coco_folder, tmp_path, **settings), resume=two_epochs())
    assert words in str(error.value) and 'load_from=CHECKPOINT' in str(error.value) and '\n' not in str(error.value)


def test_a_schedule_that_validations_drive_is_the_checkpoints(two_epochs, shared_coco_folder, tmp_path):
    plateau = dict(type='ReduceOnPlateauLR', monitor='none', patience=1)
    checkpoint = two_epochs(param_scheduler=[plateau])
    state = torch.load(checkpoint, weights_only=False)
    for group in state['optimizer']['param_groups']:
        group['lr'] = 0.002  # as if two validations had been no better
    torch.save(state, tmp_path / 'reduced.pth')
    recorder, _, said = train(toy(shared_coco_folder, tmp_path, **{
        'param_scheduler': [plateau], 'train_cfg.max_epochs': 3, 'optim_wrapper.optimizer.lr': 0.5}),
        resume=tmp_path / 'reduced.pth')
    assert {rate for rates in recorder.rates for rate in rates} == {0.002}
    assert any('which past validations set' in words for words in said)


@pytest.mark.parametrize('old, new, expected', [
    ('optim_wrapper = dict(clip_grad=dict(max_norm=10.0))', 'optim_wrapper = dict(clip_grad=None)',
     {'optim_wrapper.clip_grad.max_norm': ('10.0', 'not set'), 'optim_wrapper.clip_grad': ('not set', 'None')}),
    ("model = {'a-b': [1, 2]}", "model = {'a-b': [1, 3]}", {'model.a-b.1': ('2', '3')}),
    ("work_dir = 'a'\nmodel = dict(a=1)", "work_dir = 'b'\nmodel = dict(a=1)", {}),
    ("train_cfg = dict(max_iters=float('inf'))", 'train_cfg = dict(max_iters=-1)',
     {'train_cfg.max_iters': ("float('inf')", '-1')}),
    ('model = __import__("os")._exit(3)', 'model = None', {'model': ("__import__('os')._exit(3)", 'None')}),
    ('', 'model = dict(a=1)', None),
])
def test_configs_are_compared_and_not_run(old, new, expected):
    assert _changes(old, new) == expected



def test_a_saved_config_that_has_no_text_of_its_own_is_not_compared():
    assert _changes('optim_wrapper = <object at 0x7f>', "optim_wrapper = dict(type='OptimWrapper')") is None


def test_code_in_a_checkpoint_does_not_run(shared_coco_folder, two_epochs, tmp_path):
    state = torch.load(two_epochs())
    state['meta']['config'] = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    torch.save(state, tmp_path / 'epoch_2.pth')
    _, runner, _ = train(toy(shared_coco_folder, tmp_path / 'resumed'), resume=tmp_path / 'epoch_2.pth')
    assert runner.epoch == 4 and not (tmp_path / 'ran').exists()
