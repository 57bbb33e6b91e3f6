"""Shows how far training, validation and testing are, and how good the detector is."""
from __future__ import annotations

import math
import time
from collections import deque

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook, LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch import nn

from mmmamba.errors import first_names
from mmmamba.files import from_here

_BEST = 'progress_best'  # of the message hub, which checkpoints keep
_PACE_OF = 200  # iterations
_LOSS_OF = 50  # iterations
_LINE_EVERY = 30.0  # seconds, and
_LINE_SHARE = 0.1  # of an epoch
_PARTS = 5  # more losses than these are not named one by one
_METRICS = 6
_SIZES = (('AP50', '_50'), ('AP75', '_75'), ('small', '_s'), ('medium', '_m'), ('large', '_l'))


class ProgressHook(Hook):
    """Draws a bar on a terminal, and writes lines, at least one an epoch, to whatever standard output is.

    Both have the losses, the learning rate, the pace, the best AP so far, and the time until the end of the training,
    validations included. For a runner with a :class:`Console`, in ``runner.console``.
    """

    priority = 'NORMAL'

    def __init__(self) -> None:
        self._loop: BaseLoop | None = None
        self._by_epoch = True
        self._iterations = 0  # trained so far, those before the run was resumed included
        self._measured = 0
        self._seconds: deque[float] = deque(maxlen=_PACE_OF)
        self._val_seconds = 0.0
        self._ap: tuple[float, int] | None = None

    def before_train(self, runner: Runner) -> None:
        """Says what is trained, on what, and for how long; has something logged in every epoch."""
        self._loop = loop = runner.train_loop
        self._by_epoch = isinstance(loop, EpochBasedTrainLoop)
        self._iterations = loop.iter
        if self._by_epoch:
            self._segment = len(loop.dataloader)
        else:
            self._segment = loop.max_iters if runner.val_loop is None else min(loop.val_interval, loop.max_iters)
        for hook in runner.hooks:
            if isinstance(hook, LoggerHook):
                hook.interval = min(hook.interval, self._segment)
        if loop.iter < loop.max_iters:
            for line in (_model(runner), _data(runner), self._plan(runner)):
                runner.console.say(line)

    def before_train_epoch(self, runner: Runner) -> None:
        """Starts the clock and the bar."""
        self._now = time.monotonic()
        self._line_time, self._line_iteration = self._now, self._iterations
        self._start_bar(runner, 0)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Moves the bar; writes a line if the last one is long ago."""
        before, self._now = self._now, time.monotonic()
        if self._measured == 1:
            self._seconds.clear()  # the first iteration, which prepares much for the others
        self._seconds.append(self._now - before)
        self._measured += 1
        self._iterations = runner.iter + 1
        done = batch_idx + 1
        if not runner.console.has_bar:
            self._start_bar(runner, batch_idx)  # after a validation in between
        if runner.console.has_bar:
            runner.console.advance_bar(self._facts(runner, min(done, _LOSS_OF), in_bar=True))
        since = self._iterations - self._line_iteration
        first = since == self._measured
        if (self._now - self._line_time >= _LINE_EVERY and (first or since >= _LINE_SHARE * self._segment)
                and done % self._segment):
            self._write_line(runner, done)

    def after_train_epoch(self, runner: Runner) -> None:
        """Ends the bar and writes the epoch's line."""
        runner.console.end_bar()
        if self._by_epoch or self._iterations > self._line_iteration:
            self._write_line(runner, self._segment if self._by_epoch else self._iterations)

    def before_val_epoch(self, runner: Runner) -> None:
        """Starts the clock and the bar."""
        self._start_evaluation(runner, 'validation', runner.val_loop)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                       outputs: list | None = None) -> None:
        """Moves the bar."""
        runner.console.advance_bar([])

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Ends the bar and writes the metrics in a line, with the best AP so far."""
        runner.console.end_bar()
        self._val_seconds = time.monotonic() - self._val_started
        if self._loop is None:  # validation without training
            runner.console.say(f'validation: {describe_metrics(metrics)}')
            return
        if not self._by_epoch:
            self._write_line(runner, self._iterations)
        key = main_metric(metrics)
        self._ap = None
        if key is not None and math.isfinite(metrics[key]) and metrics[key] >= 0:
            step = self._loop.epoch if self._by_epoch else self._loop.iter
            self._ap = (metrics[key], step)
            best = best_so_far(runner)
            if best is None or self._ap[0] > best[0]:
                runner.message_hub.update_info(_BEST, list(self._ap))
        best = best_so_far(runner)
        compared = '' if not best else ' (the best so far)' if best == self._ap else f' (best: {self._step(best)})'
        runner.console.say(f'  validation: {describe_metrics(metrics)}{compared}, {duration(self._val_seconds)}')
        self._now = time.monotonic()  # of an iteration, which is not charged for the validation

    def before_test_epoch(self, runner: Runner) -> None:
        """Starts the bar."""
        self._start_evaluation(runner, 'test', runner.test_loop)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                        outputs: list | None = None) -> None:
        """Moves the bar; after the last batch, what the evaluators print and log is of interest."""
        runner.console.advance_bar([])
        if batch_idx + 1 == len(runner.test_loop.dataloader):
            runner.console.end_bar()
            runner.console.shows_results = True

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Writes the metrics in a line."""
        runner.console.shows_results = False
        seconds = time.monotonic() - self._val_started
        runner.console.say(f'test: {describe_metrics(metrics)}, {duration(seconds)}')

    def _start_bar(self, runner: Runner, done: int) -> None:
        if self._by_epoch:
            name = f'epoch {self._loop.epoch + 1}/{self._loop.max_epochs}'
            runner.console.start_bar(name, len(self._loop.dataloader), done)
        else:
            runner.console.start_bar('training', self._loop.max_iters, self._loop.iter)

    def _start_evaluation(self, runner: Runner, name: str, loop: BaseLoop) -> None:
        self._val_started = time.monotonic()
        runner.console.start_bar(name, len(loop.dataloader))

    def _write_line(self, runner: Runner, done: int) -> None:
        """Writes a line after ``done`` iterations of an epoch, or of a training that has no epochs."""
        loop = self._loop
        if self._by_epoch:
            place = f'epoch {loop.epoch + 1:{len(str(loop.max_epochs))}}/{loop.max_epochs}'
            place += f', {done}/{self._segment}' if done < self._segment else ''
        else:
            place = f'iteration {done}/{loop.max_iters}'
        since = done if self._by_epoch else max(self._iterations - self._line_iteration, 1)
        runner.console.say(f'{place}: {", ".join(self._facts(runner, since))}')
        self._line_time, self._line_iteration = time.monotonic(), self._iterations

    def _facts(self, runner: Runner, averaged: int, in_bar: bool = False) -> list[str]:
        """Returns what is said of the training: for a bar, which may be short, the most important first.

        Args:
            runner: The runner.
            averaged: The losses are means of so many iterations.
            in_bar: Whether it is for a bar.
        """
        scalars = runner.message_hub.log_scalars
        losses = {name.removeprefix('train/').removeprefix('loss_'): scalars[name].mean(averaged)
                  for name in scalars if name.startswith('train/') and 'loss' in name}
        total = losses.pop('loss', None)
        parts = ' '.join(f'{name} {_number(value)}' for name, value in losses.items()) if len(losses) <= _PARTS else ''
        loss = [] if total is None else [f'loss {_number(total)}{f" ({parts})" if parts and not in_bar else ""}']
        rate = [f'lr {scalars["train/lr"].current():.1e}'] if 'train/lr' in scalars else []
        pace = sum(self._seconds) / len(self._seconds)
        paces = [f'{pace:.2f} s/it' if pace >= 0.1 else f'{1000 * pace:.0f} ms/it']
        memory = [f'{torch.cuda.max_memory_allocated() / 2**30:.1f} GB'] if torch.cuda.is_available() else []
        seconds = self._seconds_left(runner, pace)
        left = [f'{duration(seconds)} left'] if seconds >= 1 else []
        best = best_so_far(runner)
        if in_bar:
            return [*left, *loss, *([f'best AP {best[0]:.3f}'] if best else []), *paces, *rate, *memory,
                    *([parts] if parts else [])]
        if self._ap:
            ap = [f'AP {self._ap[0]:.3f} ({"the best" if best == self._ap else f"best {self._step(best)}"})']
        else:
            ap = [f'best AP {self._step(best)}'] if best else []
        return [*loss, *rate, *paces, *memory, *ap, *left]

    def _step(self, best: tuple[float, int]) -> str:
        return f'{best[0]:.3f} {"at epoch" if self._by_epoch else "after iteration"} {best[1]}'

    def _seconds_left(self, runner: Runner, pace: float) -> float:
        loop = self._loop
        seconds = pace * (loop.max_iters - self._iterations)
        if runner.val_loop is not None:
            done, last = (loop.epoch, loop.max_epochs) if self._by_epoch else (loop.iter, loop.max_iters)
            seconds += self._val_seconds * _validations(loop, done, last)
        return seconds

    def _plan(self, runner: Runner) -> str:
        loop = self._loop
        batch = loop.dataloader.batch_size
        processes = f'{get_world_size()} x ' if get_world_size() > 1 else ''
        images = f'{processes}{_count(batch, "image")}'
        if self._by_epoch:
            plan = f'{_count(loop.max_epochs, "epoch")} of {_count(len(loop.dataloader), "iteration")} of {images}'
            start = f', from epoch {loop.epoch + 1}' if loop.epoch else ''
        else:
            plan = f'{_count(loop.max_iters, "iteration")} of {images}'
            start = f', from {loop.iter + 1}' if loop.iter else ''
        return f'plan: {plan}{start}; log and curves in {from_here(runner.log_dir)}'


def best_so_far(runner: Runner) -> tuple[float, int] | None:
    """Returns the best AP of a training, in this run or before it was resumed, and its epoch (or iteration)."""
    best = runner.message_hub.runtime_info.get(_BEST)
    return tuple(best) if best else None


def main_metric(metrics: dict[str, float] | None) -> str | None:
    """Returns the name of the metric that is the AP, the first of several; None if there is none."""
    return next((name for name in metrics or {} if name.endswith('mAP')), None)


def describe_metrics(metrics: dict[str, float] | None) -> str:
    """Writes metrics into a line: AP, at two IoUs and by size, of boxes and of masks; or the first of other metrics.

    Args:
        metrics: An evaluator's. Without any detection, COCO's has none.
    """
    if not metrics:
        return 'nothing detected'
    kinds = [name for name in metrics if name.endswith('mAP')]
    texts = []
    for kind in kinds:
        rows = [(label, metrics.get(f'{kind}{ending}')) for label, ending in (('AP', ''), *_SIZES)]
        text = ', '.join(f'{label} {value:.3f}' for label, value in rows if value is not None and value >= 0)
        what = kind.rpartition('/')[2].removesuffix('mAP').rstrip('_')
        texts.append(f'{what} {text}' if len(kinds) > 1 else text)
    if not kinds:
        texts = [f'{name} {_number(value)}' for name, value in list(metrics.items())[:_METRICS]
                 if isinstance(value, (int, float))]
    return '; '.join(texts)


def duration(seconds: float) -> str:
    """Writes a time in the unit that suits it."""
    if seconds < 99.5:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    if minutes < 100:
        return f'{minutes} min'
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes} min' if hours < 48 else f'{hours // 24} d {hours % 24} h'


def _validations(loop: BaseLoop, done: int, last: int) -> int:
    """Returns how many validations are still to come, after ``done`` of ``last`` epochs or iterations."""
    first = max(done + 1, loop.val_begin, 1)
    if first > last:
        return 0
    return last // loop.val_interval - (first - 1) // loop.val_interval + bool(last % loop.val_interval)


def _count(number: int, thing: str) -> str:
    return f'{number} {thing}{"" if number == 1 else "s"}'


def _number(value: float) -> str:
    return f'{value:.3g}' if abs(value) < 1000 else f'{value:.0f}'


def _model(runner: Runner) -> str:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    parts = [type(getattr(model, name)).__name__ for name in ('backbone', 'neck', 'bbox_head', 'roi_head')
             if isinstance(getattr(model, name, None), nn.Module)]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    device = next(model.parameters()).device
    where = torch.cuda.get_device_name(device) if device.type == 'cuda' else f'{device.type}'
    several = f'{get_world_size()} x ' if get_world_size() > 1 else ''
    return (f'model: {type(model).__name__}{f" ({chr(43).join(parts)})" if parts else ""}, '
            f'{parameters / 1e6:.1f} M parameters, on {several}{where}')


def _data(runner: Runner) -> str:
    dataset = runner.train_loop.dataloader.dataset
    val = '' if runner.val_loop is None else f', {len(runner.val_loop.dataloader.dataset)} for validation'
    classes = getattr(dataset, 'metainfo', {}).get('classes', ())
    names = f'; {len(classes)} classes: {first_names(list(classes))}' if classes else ''
    return f'data: {len(dataset)} images for training{val}{names}'
