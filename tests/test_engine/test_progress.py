"""What is seen of a run: lines in a file, a bar on a terminal, at any length of an epoch."""
from __future__ import annotations

import fcntl
import json
import math
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmdet.registry import METRICS
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook

from mmmamba.engine import CheckedRunner
from mmmamba.engine.hooks import progress_hook
from mmmamba.engine.hooks.progress_hook import describe_metrics, duration
from mmmamba.errors import InputError

import toy_training  # isort: skip  (this folder's)


@METRICS.register_module()
class ListedAP(BaseMetric):
    """A metric with one given value after the other."""

    default_prefix = 'coco'

    def __init__(self, values: tuple[float | None, ...]) -> None:
        super().__init__()
        self.values = list(values)

    def process(self, data_batch, data_samples) -> None:
        self.results.append(None)

    def compute_metrics(self, results) -> dict:
        value = self.values.pop(0)
        return {} if value is None else {'bbox_mAP': value, 'bbox_mAP_50': 0.5, 'bbox_mAP_s': -1.0}


def toy(data: Path, work_dir: Path, *, ap: tuple[float | None, ...] = (), **settings) -> Config:
    cfg = toy_training.config(data, work_dir, **{'workers': 0, 'plain': True, **settings})
    cfg.log_level = 'INFO'
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type != 'PipelineSwitchHook']
    if ap:
        cfg.val_dataloader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                                  dataset=cfg.train_dataloader.dataset)
        cfg.val_cfg, cfg.val_evaluator = dict(), dict(type='ListedAP', values=ap)
    return cfg


def records(runner: CheckedRunner) -> list[dict]:
    return [json.loads(line) for line in Path(runner.log_dir, 'vis_data/scalars.json').read_text().splitlines()]


class Doing(Hook):
    """Does something before every iteration, or before every one of a validation."""

    priority = 'HIGHEST'

    def __init__(self, action: Callable[[], None], validating: Callable[[], None] = lambda: None) -> None:
        self.action, self.validating = action, validating

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.action()

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.validating()


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """A clock that stands still unless a test moves it by its ``seconds``."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress_hook, 'time', SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def terminal(monkeypatch):
    """A function that makes this process write to a terminal of a width; and one that returns what it has received."""
    master, slave = pty.openpty()
    received = bytearray()

    def read() -> None:
        while True:
            try:
                received.extend(os.read(master, 4096))
            except OSError:  # the other side is closed
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    stream = os.fdopen(slave, 'w', buffering=1, encoding='utf-8')

    def start(columns: int = 120) -> None:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24 if columns else 0, columns, 0, 0))
        monkeypatch.setenv('TERM', 'xterm')
        for name in ('stdout', 'stderr'):
            monkeypatch.setattr(sys, name, stream)

    def finish() -> str:
        stream.close()
        reader.join(10)
        os.close(master)
        return received.decode()

    yield SimpleNamespace(start=start, finish=finish)
    stream.close()


def screen(received: str) -> list[str]:
    """What a terminal shows in the end of lines that were written over."""
    shown = []
    for line in received.replace('\r\n', '\n').split('\n'):
        cells: list[str] = []
        for part in line.split('\r'):
            part = part.replace('\x1b[A', '')
            cells[:len(part)] = part
        shown.append(''.join(cells).rstrip())
    return shown


@pytest.mark.parametrize('batch_size, iterations', [(16, 1), (6, 3)])
def test_every_epoch_is_a_line_and_a_record(batch_size, iterations, shared_coco_folder, tmp_path, capsys):
    runner = toy_training.train(toy(shared_coco_folder, tmp_path, epochs=3, batch_size=batch_size, ap=(0.2, 0.4, 0.3)))
    lines = capsys.readouterr().out.splitlines()
    plan = f'plan: 3 epochs of {iterations} iteration{"s" * (iterations > 1)} of {batch_size} images'
    assert plan in '\n'.join(lines)
    epochs = [line for line in lines if line.startswith('epoch')]
    assert [line[:9] for line in epochs] == ['epoch 1/3', 'epoch 2/3', 'epoch 3/3']
    assert all(re.search(r': loss [\d.]+, lr [\d.e+-]+, [\d.]+ m?s/it', line) for line in epochs)
    assert 'AP 0.400 (the best)' in epochs[2] and 'AP' not in epochs[0]
    validations = [line.strip() for line in lines if 'validation: ' in line]
    assert [line.rpartition(',')[0] for line in validations] == [
        'validation: AP 0.200, AP50 0.500 (the best so far)', 'validation: AP 0.400, AP50 0.500 (the best so far)',
        'validation: AP 0.300, AP50 0.500 (best: 0.400 at epoch 2)']
    assert [record['epoch'] for record in records(runner) if 'loss' in record] == [1, 2, 3]
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    assert all(line in log for line in lines) and 'Epoch(train)' in log and 'Epoch(train)' not in '\n'.join(lines)


def test_without_validation_and_with_debug_level(shared_coco_folder, tmp_path, capsys):
    cfg = toy(shared_coco_folder, tmp_path, epochs=1)
    toy_training.train(cfg)
    assert 'AP' not in capsys.readouterr().out
    cfg.log_level = 'DEBUG'
    toy_training.train(cfg)
    printed = capsys.readouterr().out
    assert 'Epoch(train)' in printed and 'System environment' in printed and 'epoch 1/1: loss' in printed
    cfg.log_level = 'WARNING'
    toy_training.train(cfg)
    assert capsys.readouterr().out == ''


def test_nothing_detected_is_not_the_best(shared_coco_folder, tmp_path, capsys):
    cfg = toy(shared_coco_folder, tmp_path, epochs=3, ap=(None, 0.2, None))
    cfg.default_hooks.checkpoint.save_best = None
    toy_training.train(cfg, Doing(lambda: print('no line', end='')))
    printed = capsys.readouterr().out
    said = [line.strip().rpartition(', ')[0] for line in printed.splitlines() if 'validation: ' in line]
    assert said == ['validation: nothing detected', 'validation: AP 0.200, AP50 0.500 (the best so far)',
                    'validation: nothing detected (best: 0.200 at epoch 2)']
    assert printed.endswith('no line' * 12)


def test_iterations_instead_of_epochs(shared_coco_folder, tmp_path, capsys):
    cfg = toy(shared_coco_folder, tmp_path, ap=(0.2, 0.1))
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2)
    cfg.default_hooks = dict(logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False))
    cfg.log_processor, cfg.param_scheduler = dict(by_epoch=False), []
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type != 'ScaleWeightDecayHook']
    runner = toy_training.train(cfg)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [re.split('[:(]', line)[0] for line in lines if line.startswith(('iteration', 'validation'))] == [
        'iteration 2/4', 'validation', 'iteration 4/4', 'validation']
    assert '(best: 0.200 after iteration 2)' in lines[-1]
    assert [record['iter'] for record in records(runner) if 'loss' in record] == [2, 4]


def test_a_resumed_run_knows_epoch_time_and_best(shared_coco_folder, tmp_path, capsys, clock):
    def minute() -> None:
        clock.seconds += 60

    toy_training.train(toy(shared_coco_folder, tmp_path, epochs=2, ap=(0.5, 0.1)), Doing(minute))
    cfg = toy(shared_coco_folder, tmp_path, epochs=5, ap=(0.1, 0.3, 0.6, 0.1))  # the first again: of epoch 2
    cfg.resume, cfg.load_from = True, str(tmp_path / 'epoch_2.pth')
    capsys.readouterr()
    toy_training.train(cfg, Doing(minute))
    lines = capsys.readouterr().out.splitlines()
    assert any('from epoch 3' in line for line in lines)
    epochs = [line for line in lines if re.match(r'epoch \d/5:', line)]
    assert [line[:9] for line in epochs] == ['epoch 3/5', 'epoch 4/5', 'epoch 5/5']
    assert 'AP 0.100 (best 0.500 at epoch 1), 8 min left' in epochs[0]
    assert 'AP 0.300 (best 0.500 at epoch 1), 4 min left' in epochs[1]
    assert 'AP 0.600 (the best)' in epochs[2] and 'left' not in epochs[2]


def test_time_left_has_the_validations_and_long_epochs_more_lines(shared_coco_folder, tmp_path, capsys, clock):
    def pass_by(seconds: float) -> None:
        clock.seconds += seconds

    toy_training.train(toy(shared_coco_folder, tmp_path, epochs=3, ap=(0.1, 0.2, 0.3)),
          Doing(lambda: pass_by(60), lambda: pass_by(30)))
    left = {line.partition(':')[0]: line.rpartition(', ')[2] for line in capsys.readouterr().out.splitlines()
            if line.startswith('epoch')}
    assert left['epoch 1/3, 1/4'] == '11 min left' and left['epoch 1/3'] == '8 min left'
    assert left['epoch 2/3, 2/4'] == '10 min left'  # six iterations, and two validations of two minutes
    assert list(left)[-1] == 'epoch 3/3' and left['epoch 3/3'] == '2 min left'


@pytest.mark.parametrize('columns', [120, 40, 0])  # a terminal in a container may not know its size
def test_a_bar_is_live_on_a_terminal_and_leaves_whole_lines(columns, shared_coco_folder, tmp_path, terminal):
    def chatter() -> None:
        print('said by a hook')
        exec("print('creating index...')", {'__name__': 'pycocotools.coco'})
        warnings.warn('of use', UserWarning, stacklevel=1)
        warnings.warn('soon gone', DeprecationWarning, stacklevel=1)
        time.sleep(0.02)

    terminal.start(columns)
    with warnings.catch_warnings():
        warnings.simplefilter('always')
        cfg = toy(shared_coco_folder, tmp_path, epochs=2, ap=(0.2, 0.4))
        runner = toy_training.train(cfg, Doing(chatter))
    received = terminal.finish()
    frames = re.split(r'[\r\n]+', received)
    bars = [frame for frame in frames if '|' in frame]
    assert any(frame.startswith('epoch 1/2 |') and ' 3/4' in frame for frame in bars)
    assert any('loss' in frame for frame in bars) and any(frame.startswith('validation |') for frame in bars)
    assert any('best AP 0.200' in frame for frame in bars) == (columns != 40)
    assert max(map(len, bars)) <= (columns or 80)
    lines = screen(received)
    assert not any('|' in line for line in lines)
    assert lines.count('said by a hook') == 8
    assert sum(line.startswith('epoch') for line in lines) == 2
    assert sum('of use' in line for line in lines) == 1 and 'soon gone' not in received
    assert 'creating index' not in received
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    assert 'creating index...' in log and 'soon gone' in log


def test_a_bar_is_gone_when_training_fails(shared_coco_folder, tmp_path, terminal, monkeypatch):
    terminal.start()
    monkeypatch.setattr(toy_training.ToyDetector, 'forward', lambda self, inputs, *_, **__: {
        'loss': self.count(inputs.mean((1, 2, 3))[:, None].expand(-1, 8)).mean() * math.nan})
    stream, showing = sys.stdout, warnings.showwarning
    with pytest.raises(InputError, match='loss is nan'):
        toy_training.train(toy(shared_coco_folder, tmp_path))
    assert sys.stdout is stream and warnings.showwarning is showing
    sys.stdout.write('error: loss is nan\n')
    assert screen(terminal.finish())[-2] == 'error: loss is nan'


def test_a_loss_that_is_not_finite_is_shown(shared_coco_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(toy_training.ToyDetector, 'forward', lambda self, inputs, *_, **__: {
        'loss': self.count(inputs.mean((1, 2, 3))[:, None].expand(-1, 8)).mean() * math.nan})
    cfg = toy(shared_coco_folder, tmp_path, epochs=1)
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook.type != 'NonFiniteLossHook']
    toy_training.train(cfg)
    assert 'epoch 1/1: loss nan' in capsys.readouterr().out


def test_other_processes_are_silent(shared_coco_folder, tmp_path, terminal, monkeypatch):
    monkeypatch.setattr('mmengine.logging.logger._get_rank', lambda: 1)
    terminal.start()
    toy_training.train(toy(shared_coco_folder, tmp_path, epochs=1))
    assert terminal.finish() == ''


def test_a_dumb_terminal_has_lines_alone(shared_coco_folder, tmp_path, terminal, monkeypatch):
    terminal.start()
    monkeypatch.setenv('TERM', 'dumb')
    toy_training.train(toy(shared_coco_folder, tmp_path, epochs=1))
    assert 'epoch 1/1: loss' in (received := terminal.finish()) and '|' not in received


@pytest.mark.parametrize('metrics, words', [
    ({'coco/bbox_mAP': 0.3, 'coco/bbox_mAP_50': 0.5, 'coco/bbox_mAP_75': 0.2, 'coco/bbox_mAP_s': -1.0,
      'coco/bbox_mAP_l': math.nan, 'coco/cat_precision': 0.1}, 'AP 0.300, AP50 0.500, AP75 0.200'),
    ({'coco/bbox_mAP': 0.3, 'coco/segm_mAP': 0.25}, 'bbox AP 0.300; segm AP 0.250'),
    ({'pascal_voc/mAP': 0.7, 'pascal_voc/AP50': 0.7}, 'AP 0.700'),
    ({'accuracy': 91.2345, 'names': 'a'}, 'accuracy 91.2'),
    ({}, 'nothing detected'),
])
def test_metrics_in_a_line(metrics, words):
    assert describe_metrics(metrics) == words


@pytest.mark.parametrize('seconds, text', [(0.4, '0 s'), (99, '99 s'), (100, '2 min'), (5900, '98 min'),
                                           (6000, '1 h 40 min'), (90 * 3600, '3 d 18 h')])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_validations_to_come_are_those_that_the_loop_makes():
    for last in range(1, 9):
        for begin in range(4):
            for interval in range(1, 5):
                loop = SimpleNamespace(val_begin=begin, val_interval=interval)
                made = [epoch for epoch in range(1, last + 1)
                        if epoch >= begin and (epoch % interval == 0 or epoch == last)]
                for done in range(last + 1):
                    expected = sum(epoch > done for epoch in made)
                    assert progress_hook._validations(loop, done, last) == expected
