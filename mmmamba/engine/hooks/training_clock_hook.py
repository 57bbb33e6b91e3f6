"""How long a run has trained."""
from __future__ import annotations

import time

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class TrainingClockHook(Hook):
    """Logs, with every validation, the time that training took until then: validation and start-up are not in it.

    ``train_minutes`` is wall-clock time, ``train_cpu_minutes`` the CPU time of this process: on a CPU that other work
    shares, the better measure of the two. The time before the run was resumed counts.
    """

    def __init__(self) -> None:
        self.minutes = {'train_minutes': 0.0, 'train_cpu_minutes': 0.0}

    def before_train_epoch(self, runner: Runner) -> None:
        """Starts the clocks."""
        self._started = _now()

    def after_train_epoch(self, runner: Runner) -> None:
        """Stops them."""
        for name, started, now in zip(self.minutes, self._started, _now()):
            self.minutes[name] += (now - started) / 60

    def before_val_epoch(self, runner: Runner) -> None:
        """Gives the logger what the clocks show."""
        for name, minutes in self.minutes.items():
            runner.message_hub.update_scalar(f'val/{name}', minutes)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keeps them for a run that is resumed."""
        checkpoint['training_clock'] = dict(self.minutes)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes them up again."""
        if runner._resume:
            self.minutes.update(checkpoint.get('training_clock', {}))


def _now() -> tuple[float, float]:
    return time.monotonic(), time.process_time()
