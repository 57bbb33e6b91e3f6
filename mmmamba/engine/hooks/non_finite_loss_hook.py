"""Stops a training run that has diverged, before its weights replace good ones."""
from __future__ import annotations

import math
import os.path as osp

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmamba.errors import InputError

_IMAGES_NAMED = 4


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Raises an :class:`InputError` at the first loss, or the first weight about to be saved, that is NaN or infinite.

    The message names the epoch, the iteration, the losses, the images of the batch, and the last good checkpoint.
    Under float16 an overflowing *gradient* is normal (the step is skipped, the loss scale halved) and stops nothing.
    """

    # Before any other hook does something with the losses or the weights.
    priority = 'HIGHEST'

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Checks the losses; costs nothing extra, for the log reads the same numbers in every iteration."""
        losses = {name: torch.as_tensor(value).item() for name, value in (outputs or {}).items() if 'loss' in name}
        bad = [f'{name} is {value}' for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            raise InputError(f'{", ".join(bad)} at epoch {runner.epoch + 1}, iteration {batch_idx + 1} of '
                             f'{len(runner.train_dataloader)}, images: {_images(data_batch)}; '
                             f'{_last_checkpoint(runner)}')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Checks the weights, which a last step of finite loss can still have spoiled."""
        for name, value in checkpoint['state_dict'].items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise InputError(f'the weights are no longer finite after epoch {runner.epoch + 1} (first: {name}); '
                                 f'this checkpoint is not saved, {_last_checkpoint(runner)}')


def _images(data_batch: dict | None) -> str:
    samples = (data_batch or {}).get('data_samples') or []
    names = [f'{osp.basename(str(sample.get("img_path")))} (id {sample.get("img_id")})' for sample in samples]
    more = f' and {len(names) - _IMAGES_NAMED} more' if len(names) > _IMAGES_NAMED else ''
    return (', '.join(names[:_IMAGES_NAMED]) or 'unknown') + more


def _last_checkpoint(runner: Runner) -> str:
    pointer = osp.join(runner.work_dir, 'last_checkpoint')
    if not osp.isfile(pointer):
        return 'no checkpoint has been saved yet'
    with open(pointer) as file:
        return f'the last good checkpoint is {file.read().strip()}'
