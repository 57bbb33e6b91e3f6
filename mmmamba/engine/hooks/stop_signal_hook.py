"""A training that is asked to end: by a scheduler whose time limit is near, by ``scancel``, by ``kill``."""
from __future__ import annotations

import signal
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import distributed

from mmmamba.engine.hooks.validation_hooks import MissedValidationHook
from mmmamba.engine.processes import longest_wait
from mmmamba.engine.train_loop import ResumableTrainLoop
from mmmamba.errors import STOP_SIGNALS
from mmmamba.files import write_atomically

STOPPED = 'stopped.pth'
"""The checkpoint of a training that was asked to end, in its work dir."""
_SIGNALS = tuple(number for number in STOP_SIGNALS if number != signal.SIGINT)  # which raises KeyboardInterrupt


class TrainingStopped(Exception):
    """A training ended because it was asked to.

    Attributes:
        signal: What asked.
        checkpoint: What the run can be resumed from; None if there is nothing yet.
    """

    def __init__(self, number: int, checkpoint: Path | None) -> None:
        self.signal, self.checkpoint = signal.Signals(number), checkpoint
        super().__init__(f'stopped by {self.signal.name}')


@HOOKS.register_module()
class StopSignalHook(Hook):
    """Saves a checkpoint and ends the training after SIGTERM or SIGUSR1.

    Slurm sends SIGTERM when a job is cancelled or pre-empted, and, on request, SIGUSR1 before its time is over
    (``--signal=USR1@120``). After the iteration in which the signal arrives, or with several processes one or two
    later, ``stopped.pth`` is saved and :class:`TrainingStopped` is raised. A run that is resumed from it goes on
    with the next batch of the epoch, and ends with the weights of one that was never stopped.

    With several processes, each has to know after the same iteration: the signals are reduced over all of them after
    every iteration, in the background and on the CPU, and read after the next. It is enough that one of them is
    signalled. They go on to the next step of the optimizer, since gradients that are accumulated for it are each
    process's own, and only the first one's state is saved.

    A validation is left at once if its epoch has been saved, since ``MissedValidationHook`` does it again when the run
    is resumed; otherwise it is finished first.
    """

    # After everything that belongs to an iteration, the schedules' steps included.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._signal = 0
        self._listening = False
        self._saved = -1  # iterations, in the first process
        self._leaves_in_first = 0  # batches of a validation
        self._position: dict[str, int] | None = None
        self._previous: dict[int, Any] = {}
        self._votes: _Votes | None = None

    def before_train(self, runner: Runner) -> None:
        """Listens for signals."""
        self._listening = True
        if runner.world_size > 1:
            self._votes = _Votes(longest_wait(runner.cfg))
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._note)

    def after_train(self, runner: Runner) -> None:
        """Listens no longer, once all processes are here."""
        self._wait_for_all()
        self._signal = 0
        self.stop_listening()

    def before_train_epoch(self, runner: Runner) -> None:
        """Stops between two epochs, or before an epoch that was left in the middle goes on."""
        self._stop_if_asked(runner, runner.iter, getattr(runner.train_loop, 'first_batch', 0))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Stops in an epoch; its last iteration is followed by the epoch's own checkpoint."""
        loop = runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop):
            self._stop_if_asked(runner, runner.iter + 1)
        elif isinstance(loop, ResumableTrainLoop) and batch_idx + 1 < len(loop.dataloader):
            self._stop_if_asked(runner, runner.iter + 1, batch_idx + 1)

    def before_val_epoch(self, runner: Runner) -> None:
        """Counts the batches after which a validation can be left: those that no process is without."""
        if not self._may_leave_validation(runner):
            self._leaves_in_first = 0
            return
        self._leaves_in_first = len(runner.val_dataloader)
        if self._votes is not None:
            self._leaves_in_first = self._votes.smallest(self._leaves_in_first)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                       outputs: list | None = None) -> None:
        """Leaves a validation if nothing would be lost."""
        if batch_idx < self._leaves_in_first:
            self._stop_if_asked(runner, runner.iter, only_if_saved=True)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remembers what was saved last; adds the position in the epoch."""
        if 'optimizer' in checkpoint:
            self._saved = checkpoint['meta']['iter']
        if self._position:
            checkpoint['position_in_epoch'] = self._position

    def after_train_epoch(self, runner: Runner) -> None:
        """Deletes what an earlier call was stopped at, once the epoch has been saved."""
        if is_main_process() and self._saved == runner.iter:
            Path(runner.work_dir, STOPPED).unlink(missing_ok=True)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Has the loop begin where the epoch was left."""
        position = checkpoint.get('position_in_epoch')
        loop = runner.train_loop if runner._resume else None
        if position and isinstance(loop, ResumableTrainLoop):
            batches = len(loop.dataloader)  # another number than before if the batch is another
            loop.first_batch = min(round(position['batches'] / position['of'] * batches), batches - 1)

    def _note(self, number: int, frame: object) -> None:
        self._signal = number

    def _stop_if_asked(self, runner: Runner, iterations: int, batches: int = 0, only_if_saved: bool = False) -> None:
        """Saves and ends the training if a process was asked to end.

        Args:
            runner: The runner.
            iterations: That the training has had.
            batches: Those of them in an epoch that is not over.
            only_if_saved: Whether to go on unless there is a checkpoint of so many iterations.

        Raises:
            TrainingStopped: One was.
        """
        number, saved = self._signal, self._saved
        if self._votes is not None:
            number, saved = self._votes.largest(number, saved)
            if not _steps_now(runner.optim_wrapper):
                return
        if number <= 0 or only_if_saved and saved != iterations:
            return
        checkpoint: Path | None = Path(runner.work_dir, STOPPED)
        if iterations == 0:
            checkpoint = None
        elif saved == iterations:
            # Not read from the work dir, which processes on other machines need not see.
            checkpoint = Path(runner.message_hub.get_info('last_ckpt'))
        else:
            self._save(runner, Path(runner.work_dir, STOPPED), iterations, batches)
        self._wait_for_all()
        self._signal = 0
        raise TrainingStopped(number, checkpoint)

    def _save(self, runner: Runner, path: Path, iterations: int, batches: int) -> None:
        if batches:
            self._position = {'batches': batches, 'of': len(runner.train_loop.dataloader)}
        runner.save_checkpoint(str(path.parent), path.name, meta={'epoch': runner.epoch, 'iter': iterations},
                               backend_args={'backend': 'atomic_local'})
        if is_main_process():
            write_atomically(path.with_name('last_checkpoint'), str(path).encode())

    def stop_listening(self) -> None:
        """Leaves signals to what they did before the training, also one of which nothing came.

        A launcher ends the other processes when one fails. These fail, too, and need not say so as well.
        """
        for number, handler in self._previous.items():
            # A handler of a C library, which Python does not know, is None and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}
        self._listening = False
        if self._signal and not is_main_process():
            signal.raise_signal(self._signal)

    def _may_leave_validation(self, runner: Runner) -> bool:
        # One that would not be done again, as in trainings by iterations, has to be finished.
        return (self._listening and isinstance(runner.train_loop, EpochBasedTrainLoop)
                and any(isinstance(hook, MissedValidationHook) for hook in runner.hooks))

    def _wait_for_all(self) -> None:
        # A process that ended while the first one still saves would have the launcher end that, too.
        if self._votes is not None:
            self._votes.close()


def _steps_now(wrapper: OptimWrapper) -> bool:
    # Several optimizers have no common count of iterations.
    return isinstance(wrapper, OptimWrapperDict) or wrapper.should_update()


class _Votes:
    """The largest of the numbers of all processes, which they learn at the same call.

    Reducing takes as long as the slowest process; so a call starts it, and the next one reads the result.
    """

    def __init__(self, timeout: timedelta) -> None:
        self._group = distributed.new_group(backend='gloo', timeout=timeout)
        self._work: Any = None

    def largest(self, *mine: int) -> list[int]:
        """Puts in this process's numbers, and returns the largest of the last call, -1 in the first."""
        agreed = [-1] * len(mine)
        if self._work is not None:
            self._work.wait()
            agreed = self._numbers.tolist()
        self._numbers = torch.tensor(mine)
        self._work = distributed.all_reduce(self._numbers, distributed.ReduceOp.MAX, self._group, async_op=True)
        return agreed

    def smallest(self, mine: int) -> int:
        """Waits for all processes, and returns the smallest of their numbers."""
        number = torch.tensor(mine)
        distributed.all_reduce(number, distributed.ReduceOp.MIN, self._group)
        return int(number)

    def close(self) -> None:
        """Waits until all processes are here."""
        if self._work is not None:
            self._work.wait()
        distributed.barrier(self._group)
