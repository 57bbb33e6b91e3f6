"""Hooks around validation: of all that is due, of one and the same model, with encoded masks, and the time so far."""
from __future__ import annotations

import time

from mmdet.registry import HOOKS
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _NormBase

from mmmamba.models.dense_heads import set_encode_masks


@HOOKS.register_module()
class EncodedMasksHook(Hook):
    """Has ``YOLOv8InsHead`` encode its masks in validation and testing, where mmdet's ``CocoMetric`` would do it.

    An image has up to 300 bitmaps of its own size, and a batch, or each view of test-time augmentation, as many again.
    """

    def before_val_epoch(self, runner: Runner) -> None:
        """Switches encoding on."""
        set_encode_masks(runner.model, True)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Switches encoding off."""
        set_encode_masks(runner.model, False)

    before_test_epoch, after_test_epoch = before_val_epoch, after_val_epoch


@HOOKS.register_module()
class MissedValidationHook(Hook):
    """Validates a run at once that is resumed after an epoch that has to be validated.

    mmengine saves the checkpoint before it validates. A run that is stopped in between goes on with the next epoch
    when it is resumed, and that validation is missing for good; one that was stopped after its last epoch has nothing
    left to do. The checkpoint does not tell whether the validation was done: then it is done again, with the same
    result.
    """

    # After all other hooks: validating needs what they prepare in `before_train`, such as the checkpoint's folder.
    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Validates what was resumed, if it is due."""
        loop = runner.train_loop
        due = loop.epoch % loop.val_interval == 0 or loop.epoch == loop.max_epochs
        if getattr(loop, 'first_batch', 0):  # the run was left in the epoch after, so this one has been validated
            return
        if runner.val_loop is not None and due and loop.epoch >= max(loop.val_begin, 1):
            runner.val_loop.run()


@HOOKS.register_module()
class SameBuffersHook(Hook):
    """Has all processes validate with the first one's running statistics, which are those that are saved.

    Each process computes BatchNorm's running means and variances from its own images. Without this hook, it would
    also validate with them, and the AP would be that of no checkpoint.
    """

    # After EMAHook, which puts in the averages.
    priority = 'LOW'

    def before_val_epoch(self, runner: Runner) -> None:
        """Takes the first process's statistics, also for the training that follows."""
        for module in runner.model.modules():
            if isinstance(module, _NormBase):  # of batches and of instances
                for buffer in module.buffers():
                    broadcast(buffer)


@HOOKS.register_module()
class TrainingClockHook(Hook):
    """Logs, with every validation, the time that training took until then: validation and start-up are not in it.

    ``train_minutes`` is wall-clock time, ``train_cpu_minutes`` the CPU time of this process: on a CPU that other work
    shares, the better measure of the two. The time before the run was resumed counts.
    """

    def __init__(self) -> None:
        self.minutes = {'train_minutes': 0.0, 'train_cpu_minutes': 0.0}
        self._started: tuple[float, float] | None = None

    def before_train_epoch(self, runner: Runner) -> None:
        """Starts the clocks."""
        self._started = _now()

    def after_train_epoch(self, runner: Runner) -> None:
        """Stops them."""
        self.minutes, self._started = self._shown(), None

    def before_val_epoch(self, runner: Runner) -> None:
        """Gives the logger what the clocks show."""
        for name, minutes in self.minutes.items():
            runner.message_hub.update_scalar(f'val/{name}', minutes)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keeps them for a run that is resumed, maybe in the middle of an epoch."""
        checkpoint['training_clock'] = self._shown()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes them up again."""
        if runner._resume:
            self.minutes.update(checkpoint.get('training_clock', {}))

    def _shown(self) -> dict[str, float]:
        if self._started is None:
            return dict(self.minutes)
        return {name: before + (now - started) / 60
                for (name, before), started, now in zip(self.minutes.items(), self._started, _now())}


def _now() -> tuple[float, float]:
    return time.monotonic(), time.process_time()
