"""A training that is asked to end saves where it is, and ends after resuming as if it had never been stopped."""
from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest
import torch
from mmengine.hooks import Hook

from mmmamba.engine import CheckedRunner, StopSignalHook, TrainingStopped

import toy_training  # isort: skip  (this folder's)

pytestmark = pytest.mark.usefixtures('one_thread')


class Signal(Hook):
    """Sends this process a signal in the middle of an iteration."""

    def __init__(self, iteration: int, number: int = signal.SIGTERM) -> None:
        self.iteration, self.number = iteration, number

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.iteration:
            os.kill(os.getpid(), self.number)


def train(cfg, *hooks: Hook, resume: bool = False) -> CheckedRunner:
    cfg.resume = resume
    return toy_training.train(cfg, *hooks)


@pytest.mark.parametrize('scenario', toy_training.SCENARIOS)
@pytest.mark.parametrize('iteration', [0, 6, 7, 8])
def test_stopped_run_ends_as_if_it_had_not_been(shared_coco_folder, tmp_path, scenario, iteration):
    """At the first iteration of all, in an epoch of 4, in its last iteration, and in the first of the next."""
    arguments = {**toy_training.SCENARIOS[scenario], 'workers': 0}
    cfg = toy_training.config(shared_coco_folder, tmp_path / 'stopped', **arguments)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStopped) as stop:
        train(cfg, Signal(iteration))
    assert signal.getsignal(signal.SIGTERM) == before
    assert stop.value.signal == signal.SIGTERM
    assert stop.value.checkpoint.name == ('epoch_2.pth' if iteration == 7 else 'stopped.pth')
    assert torch.load(stop.value.checkpoint)['meta']['iter'] == iteration + 1

    train(cfg, resume=True)
    assert not (tmp_path / 'stopped/stopped.pth').exists()
    train(toy_training.config(shared_coco_folder, tmp_path / 'whole', **arguments))
    toy_training.assert_same_end(*(torch.load(tmp_path / run / 'epoch_4.pth') for run in ('stopped', 'whole')))


def test_data_workers_do_not_end_before_the_process(shared_coco_folder, tmp_path):
    """Slurm signals all processes of a job."""

    class Everyone(Signal):
        def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
            if runner.iter == self.iteration:
                workers = multiprocessing.active_children()
                assert workers
                for process in (*(worker.pid for worker in workers), os.getpid()):
                    os.kill(process, self.number)
                time.sleep(0.3)

    cfg = toy_training.config(shared_coco_folder, tmp_path / 'run', batch_size=1, workers=1)
    for number, iteration in ((signal.SIGUSR1, 3), (signal.SIGTERM, 5)):
        with pytest.raises(TrainingStopped) as stop:
            train(cfg, Everyone(iteration, number), resume=True)
        assert stop.value.signal == number
        assert torch.load(tmp_path / 'run/stopped.pth')['meta']['iter'] == iteration + 1


def test_a_run_that_is_stopped_before_it_goes_on_stays_where_it_was(shared_coco_folder, tmp_path):

    class AtOnce(Hook):
        def before_train_epoch(self, runner) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    cfg = toy_training.config(shared_coco_folder, tmp_path / 'stopped', workers=0)
    for hook in (Signal(5), AtOnce()):
        with pytest.raises(TrainingStopped):
            train(cfg, hook, resume=True)
        assert torch.load(tmp_path / 'stopped/stopped.pth')['position_in_epoch'] == {'batches': 2, 'of': 4}
    train(cfg, resume=True)
    train(toy_training.config(shared_coco_folder, tmp_path / 'whole', workers=0))
    toy_training.assert_same_end(*(torch.load(tmp_path / run / 'epoch_4.pth') for run in ('stopped', 'whole')))


def validated(cfg, batch_size: int = 4):
    cfg.val_dataloader = dict(batch_size=batch_size, num_workers=0, dataset=cfg.train_dataloader.dataset,
                              sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.val_cfg, cfg.val_evaluator = dict(), dict(type='DumpResults', out_file_path=f'{cfg.work_dir}/results.pkl')
    return cfg


class Validated(Hook):
    """Notes which epochs were validated, and sends the process a signal in the validation of one."""

    def __init__(self, stop: int = 0) -> None:
        self.stop, self.epochs, self.batches = stop, [], 0

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.batches += 1
        if runner.epoch == self.stop and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.epochs.append(runner.epoch)


@pytest.mark.parametrize('epoch', [2, 4])
def test_a_validation_that_was_left_is_done_when_the_run_goes_on(shared_coco_folder, tmp_path, epoch):
    cfg = validated(toy_training.config(shared_coco_folder, tmp_path, workers=0))
    first, second = Validated(stop=epoch), Validated()
    with pytest.raises(TrainingStopped) as stop:
        train(cfg, first)
    assert stop.value.checkpoint == tmp_path / f'epoch_{epoch}.pth'
    assert first.batches == 4 * (epoch - 1) + 2
    train(cfg, second, resume=True)
    assert first.epochs + second.epochs == [1, 2, 3, 4]


def test_a_run_that_goes_on_in_an_epoch_does_not_validate_the_one_before_again(shared_coco_folder, tmp_path):
    cfg = validated(toy_training.config(shared_coco_folder, tmp_path, workers=0))
    first, second = Validated(), Validated()
    with pytest.raises(TrainingStopped):
        train(cfg, first, Signal(9))
    train(cfg, second, resume=True)
    assert first.epochs == [1, 2] and second.epochs == [3, 4]


def test_a_handler_that_python_does_not_know_does_not_end_the_training(monkeypatch):
    hook = StopSignalHook()
    before = signal.getsignal(signal.SIGTERM)
    hook._previous = {signal.SIGTERM: None}  # as signal.signal says of a C library's
    hook.stop_listening()
    assert signal.signal(signal.SIGTERM, before) == signal.SIG_DFL


def test_a_process_that_was_asked_to_end_and_fails_need_not_say_so(monkeypatch):
    """A launcher ends the others when one fails; they have lost the contact to it."""
    for main_process, heard in ((False, [signal.SIGTERM]), (True, [])):
        hook, ended = StopSignalHook(), []
        monkeypatch.setattr('mmmamba.engine.hooks.stop_signal_hook.is_main_process', lambda main=main_process: main)
        hook._previous = {signal.SIGTERM: lambda number, frame, ended=ended: ended.append(number)}
        before = signal.signal(signal.SIGTERM, hook._note)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            hook.stop_listening()
        finally:
            signal.signal(signal.SIGTERM, before)
        assert ended == heard


def test_another_batch_size_goes_on_at_the_same_image(shared_coco_folder, tmp_path):
    cfg = toy_training.config(shared_coco_folder, tmp_path, workers=0, batch_size=4)
    with pytest.raises(TrainingStopped):
        train(cfg, Signal(5))  # after the 8 first images of the second epoch
    cfg.train_dataloader.batch_size = 2
    seen = []

    class Seen(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
            seen.append((runner.epoch, batch_idx))

    assert train(cfg, Seen(), resume=True).iter == 4 * 8
    assert seen == [(epoch, batch) for epoch in (1, 2, 3) for batch in range(8)][4:]
