"""The length of a training with what follows from it, its learning rate, and stopping early."""
from __future__ import annotations

import copy
from collections.abc import Sequence

from mmengine.config import Config, ConfigDict

from mmmamba.errors import InputError

_IMPROVEMENT = 0.0005
"""COCO's AP is rounded to 0.001: less than that is no improvement."""
_LARGEST_MOMENTUM = 0.1
"""A moving average over ten iterations at least."""


def with_epochs(cfg: Config, epochs: int) -> Config:
    """Fits the same recipe into another number of epochs.

    Steps of the learning rate, the last part without mosaic and the horizon of moving averages (EMA) follow in
    proportion. Warm-up becomes shorter with the training, and not longer. Training that counts iterations (the
    recipes with large-scale jitter) counts epochs from then on.

    Args:
        cfg: With a training loop; not changed.
        epochs: At least 1.

    Raises:
        InputError: Fewer, or there is no training loop.
    """
    if epochs < 1:
        raise InputError(f'the number of epochs must be positive, got {epochs}')
    if not cfg.get('train_cfg'):
        raise InputError('the config has no train_cfg, so that a number of epochs has no effect')
    cfg = copy.deepcopy(cfg)
    loop = cfg.train_cfg
    schedulers = _listed(cfg.get('param_scheduler'))
    old = loop.get('max_epochs')
    if old is None:
        _count_epochs(cfg, schedulers)
        old = loop.max_epochs
    if old == epochs:
        return cfg
    share = epochs / old
    loop.max_epochs = epochs
    if 'max_epochs' in cfg:
        cfg.max_epochs = epochs
    loop.val_interval = min(loop.get('val_interval', 1), epochs)
    if loop.get('dynamic_intervals'):
        starts = [(max(1, min(round(start * share), epochs - 1)), interval)
                  for start, interval in loop.dynamic_intervals]
        loop.dynamic_intervals = starts if epochs > 1 else None
    if loop.get('val_begin', 1) > 1:
        loop.val_begin = max(1, round(loop.val_begin * share))

    ends = _Boundaries(schedulers, old, epochs)
    kept = [scheduler for scheduler in schedulers if _fit_scheduler(scheduler, ends, share)]
    if schedulers:
        cfg.param_scheduler = kept if isinstance(cfg.param_scheduler, list) else kept[0]
    if cfg.get('custom_hooks'):
        cfg.custom_hooks = [hook for hook in cfg.custom_hooks if _fit_hook(hook, share, epochs)]
    checkpoint = cfg.get('default_hooks', {}).get('checkpoint', {})
    if 'interval' in checkpoint:
        checkpoint.interval = min(checkpoint.interval, epochs)
    return cfg


def with_learning_rate(cfg: Config, rate: float) -> Config:
    """Returns a config with another learning rate; a least rate that its schedule decays to changes in proportion.

    Raises:
        InputError: It is not positive, or the config has no optimizer with a learning rate.
    """
    if not rate > 0:
        raise InputError(f'the learning rate must be positive, got {rate}')
    cfg = copy.deepcopy(cfg)
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if 'lr' not in optimizer:
        raise InputError('the config has no optim_wrapper.optimizer.lr')
    share = rate / optimizer['lr']
    optimizer['lr'] = rate
    for scheduler in _listed(cfg.get('param_scheduler')):
        if scheduler.get('eta_min'):
            scheduler.eta_min *= share
    return cfg


def with_early_stopping(cfg: Config, patience: int) -> Config:
    """Ends training when the AP of boxes has not improved in so many validations; by mmengine's hook.

    Args:
        cfg: With a validation; not changed.
        patience: Validations, at least 1.

    Raises:
        InputError: Fewer, or no evaluator that gives AP.
    """
    if patience < 1:
        raise InputError(f'the patience of early stopping must be at least one validation, got {patience}')
    metrics = {'CocoMetric': 'coco/bbox_mAP', 'VOCMetric': 'pascal_voc/mAP'}
    kinds = [evaluator.get('type', '').split('.')[-1] for evaluator in _listed(cfg.get('val_evaluator'))]
    monitor = next((metrics[kind] for kind in kinds if kind in metrics), None)
    if monitor is None:
        raise InputError('early stopping needs a CocoMetric or a VOCMetric as val_evaluator')
    cfg = copy.deepcopy(cfg)
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook.get('type') != 'EarlyStoppingHook']
    cfg.custom_hooks = [*hooks, dict(type='EarlyStoppingHook', monitor=monitor, rule='greater',
                                     min_delta=_IMPROVEMENT, patience=patience)]
    return cfg


class _Boundaries:
    """The epochs at which schedules begin and end, at another length.

    Parts of a schedule that follow one another still do, and each keeps an epoch, if there are enough.
    """

    def __init__(self, schedulers: Sequence[ConfigDict], old: int, new: int) -> None:
        counted = [scheduler for scheduler in schedulers if scheduler.get('by_epoch', True)]
        inner = sorted({scheduler[key] for scheduler in counted for key in ('begin', 'end')
                        if 0 < scheduler.get(key, 0) < old})
        self._new = {0: 0, old: new}
        before = 0
        for index, boundary in enumerate(inner):
            latest = new - (len(inner) - index)
            before = max(min(round(boundary * new / old), latest), min(before + 1, latest), 0)
            self._new[boundary] = before
        self._share = new / old

    def __call__(self, boundary: int) -> int:
        return self._new.get(boundary, round(boundary * self._share))


def _fit_scheduler(scheduler: ConfigDict, ends: _Boundaries, share: float) -> bool:
    """Fits a schedule into the new length, in place; returns False for one that has no epoch left."""
    shrunk = min(share, 1.0)
    if 'warmup_epochs' in scheduler:
        scheduler.warmup_epochs *= shrunk
        if 'min_warmup_iters' in scheduler:
            scheduler.min_warmup_iters = round(scheduler.min_warmup_iters * shrunk)
        return True
    if str(scheduler.type).startswith('Warmup'):
        return True
    if not scheduler.get('by_epoch', True):
        if 'end' in scheduler:
            scheduler.end = scheduler.get('begin', 0) + max(1, round(
                (scheduler.end - scheduler.get('begin', 0)) * shrunk))
        return True
    for key in ('begin', 'end'):
        if key in scheduler:
            scheduler[key] = ends(scheduler[key])
    if 'milestones' in scheduler:
        last = scheduler.get('end', ends(0) + 1) - 1
        scheduler.milestones = [max(1, min(round(step * share), max(1, last))) for step in scheduler.milestones]
    for key in ('T_max', 'step_size'):
        if key in scheduler:
            scheduler[key] = max(1, round(scheduler[key] * share))
    return scheduler.get('begin', 0) < scheduler.get('end', float('inf'))


def _fit_hook(hook: ConfigDict, share: float, epochs: int) -> bool:
    """Fits a hook into the new length, in place; returns False for one that has nothing left to do."""
    kind = str(hook.get('type')).split('.')[-1]
    if kind == 'PipelineSwitchHook':
        hook.switch_epoch = min(round(hook.switch_epoch * share), epochs - 1)
        return hook.switch_epoch > 0
    if kind == 'YOLOXModeSwitchHook':
        hook.num_last_epochs = max(1, round(hook.get('num_last_epochs', 15) * share))
    if kind == 'EMAHook' and hook.get('ema_type') == 'ExpMomentumEMA':
        hook.momentum = min(hook.get('momentum', 0.0002) / share, max(_LARGEST_MOMENTUM, hook.get('momentum', 0)))
        hook.gamma = max(1, round(hook.get('gamma', 2000) * share))
    return True


def _count_epochs(cfg: Config, schedulers: Sequence[ConfigDict]) -> None:
    """Has a training by iterations count epochs, 100 of them, in place."""
    loop, whole = cfg.train_cfg, 100
    iterations = loop.pop('max_iters')
    loop.update(type='EpochBasedTrainLoop', max_epochs=whole, val_interval=1)
    loop.pop('dynamic_intervals', None)
    for scheduler in schedulers:
        if scheduler.get('end') == iterations:
            scheduler.update(by_epoch=True, begin=round(scheduler.get('begin', 0) * whole / iterations), end=whole)
            if 'milestones' in scheduler:
                scheduler.milestones = [round(step * whole / iterations) for step in scheduler.milestones]
    sampler = cfg.train_dataloader.get('sampler') or ConfigDict()
    if sampler.get('type') == 'InfiniteSampler':
        sampler.type = 'DefaultSampler'
        sampler.setdefault('shuffle', True)
    cfg.setdefault('default_hooks', {}).setdefault('checkpoint', {}).update(by_epoch=True, interval=1)
    cfg.setdefault('log_processor', {}).update(by_epoch=True)


def _listed(value: object) -> list[ConfigDict]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]  # type: ignore
