"""mmengine's runner with what holds for every config that our tools run."""
from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType

from mmdet.engine.hooks import PipelineSwitchHook
from mmdet.registry import RUNNERS
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, OptimWrapperDict, ZeroRedundancyOptimizer
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from mmmamba.engine.console import Console
from mmmamba.engine.hooks.class_count_hook import ClassCountHook
from mmmamba.engine.hooks.config_on_resume_hook import ConfigOnResumeHook
from mmmamba.engine.hooks.fused_layers_hook import FusedLayersHook
from mmmamba.engine.hooks.progress_hook import ProgressHook
from mmmamba.engine.hooks.stop_signal_hook import StopSignalHook
from mmmamba.engine.hooks.unreadable_images_hook import UnreadableImagesHook
from mmmamba.engine.hooks.validation_hooks import EncodedMasksHook, MissedValidationHook, SameBuffersHook
from mmmamba.engine.processes import signal_at_end_of_parent
from mmmamba.engine.train_loop import ResumableTrainLoop
from mmmamba.errors import InputError

_OF_WORKERS = ('persistent_workers', 'prefetch_factor', 'timeout', 'multiprocessing_context')


@RUNNERS.register_module()
class CheckedRunner(Runner):
    """mmengine's ``Runner`` for any config, those of mmdet's recipes included.

    It has :class:`ClassCountHook`, :class:`ConfigOnResumeHook`, :class:`EncodedMasksHook`, :class:`FusedLayersHook`,
    :class:`MissedValidationHook`, :class:`SameBuffersHook`, :class:`UnreadableImagesHook`, :class:`ProgressHook` and
    :class:`StopSignalHook` even if the config does not list them, mmengine's ``EpochBasedTrainLoop`` is
    :class:`ResumableTrainLoop`, its data loaders work with ``num_workers=0``, whatever the config says of workers, and
    it warns of a pipeline that would be switched to after the end. The screen shows the progress and warnings, as its
    ``console`` decides; with ``log_level='DEBUG'`` it shows the whole log.
    """

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, seed: int | None = None,
                         diff_rank_seed: bool = False) -> DataLoader:
        """Builds a loader as ``Runner`` does; without workers, their settings, which PyTorch refuses, are left out."""
        if isinstance(dataloader, dict) and not dataloader.get('num_workers'):
            dataloader = {key: value for key, value in dataloader.items() if key not in _OF_WORKERS}
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)
        return loader

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Builds the loop as ``Runner`` does, of a class that can begin in the middle of an epoch."""
        if isinstance(loop, dict):
            loop = dict(loop)
            if loop.get('by_epoch') or loop.get('type') in ('EpochBasedTrainLoop', EpochBasedTrainLoop):
                loop.pop('by_epoch', None)
                loop['type'] = ResumableTrainLoop
        return super().build_train_loop(loop)

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **settings) -> MMLogger:
        """Builds the logger as ``Runner`` does, and the console between it and the screen."""
        logger = super().build_logger(log_level, log_file, **settings)
        self.console = Console(logger, everything=log_level in ('DEBUG', logging.DEBUG))
        return logger

    def register_hooks(self, default_hooks: dict[str, Hook | dict] | None = None,
                       custom_hooks: list[Hook | dict] | None = None) -> None:
        """Registers the config's hooks, and of those that every run needs the ones that are missing."""
        super().register_hooks(default_hooks, custom_hooks)
        for needed in (ClassCountHook, ConfigOnResumeHook, EncodedMasksHook, FusedLayersHook, UnreadableImagesHook,
                       ProgressHook, StopSignalHook, MissedValidationHook, SameBuffersHook):
            if not any(isinstance(hook, needed) for hook in self.hooks):
                self.register_hook(needed())

    def build_optim_wrapper(self, optim_wrapper: Optimizer | OptimWrapper | dict) -> OptimWrapper | OptimWrapperDict:
        """Builds the optimizer as ``Runner`` does.

        Raises:
            InputError: It is to be divided among processes, of which this run has one.
        """
        optimizer = optim_wrapper.get('optimizer') if isinstance(optim_wrapper, dict) else None
        if isinstance(optimizer, dict) and optimizer.get('type') == 'ZeroRedundancyOptimizer' and not self.distributed:
            raise InputError('ZeroRedundancyOptimizer divides its state among processes, and this run has one: set '
                             f'optim_wrapper.optimizer.type={optimizer.get("optimizer_type")}, and leave out '
                             'optimizer_type')
        return super().build_optim_wrapper(optim_wrapper)

    def build_evaluator(self, evaluator: dict | list | Evaluator) -> Evaluator:
        """Builds the metrics as ``Runner`` does; several processes send their results to each other.

        By mmengine's default they write files into the current folder, which machines need not share.
        """
        built = super().build_evaluator(evaluator)
        for metric in built.metrics:
            if self.distributed and metric.collect_dir is None:
                metric.collect_device = 'gpu'  # which means the process group, of whatever device
        return built

    def save_checkpoint(self, out_dir: str, filename: str, file_client_args: dict | None = None,
                        save_optimizer: bool = True, *arguments, **settings) -> None:
        """Saves a checkpoint as ``Runner`` does; call it in all processes.

        mmengine's ``ZeroRedundancyOptimizer`` collects its state from all of them, but mmengine asks the first process
        alone for it, which would wait for the others.
        """
        super().save_checkpoint(out_dir, filename, file_client_args, save_optimizer, *arguments, **settings)
        optimizer = getattr(self.optim_wrapper, 'optimizer', None)  # several have none of this name
        if save_optimizer and not is_main_process() and isinstance(optimizer, ZeroRedundancyOptimizer):
            optimizer.state_dict()

    def train(self) -> nn.Module:
        """Trains, after a warning if the last part of the recipe (without mosaic) lies beyond the end."""
        with self.console.watch():
            if isinstance(self.train_loop, EpochBasedTrainLoop):
                epochs = self.train_loop.max_epochs
                for hook in self.hooks:
                    if isinstance(hook, PipelineSwitchHook) and hook.switch_epoch >= epochs:
                        self.logger.warning(f'PipelineSwitchHook.switch_epoch is {hook.switch_epoch}, '
                                            f'train_cfg.max_epochs {epochs}: the pipeline is never switched.')
            try:
                return super().train()
            finally:
                for hook in self.hooks:
                    if isinstance(hook, StopSignalHook):
                        hook.stop_listening()

    def val(self) -> dict[str, float]:
        """Validates."""
        with self.console.watch():
            return super().val()

    def test(self) -> dict[str, float]:
        """Tests."""
        with self.console.watch():
            return super().test()


def _start_worker(prepare: Callable[[int], None] | None, worker: int) -> None:
    """Prepares a data worker, and has it end with its main process alone.

    A scheduler signals all processes of a job. A worker that ended at once would end the main process with an error,
    wherever that is just then. One that outlived it, as PyTorch's do by seconds, would hold its connections open, and
    the other processes of the run would wait for it.
    """
    if hasattr(signal, 'sigwaitinfo'):  # Linux
        signal_at_end_of_parent(signal.SIGKILL)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_for, args=(os.getppid(),), daemon=True).start()
    sys.excepthook = _except_lost_connections
    if prepare is not None:
        prepare(worker)


def _except_lost_connections(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    # multiprocessing's thread that hands batches over reports here if the main process has ended meanwhile. What fails
    # in loading itself is raised in the main process.
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, traceback)


def _end_for(sender: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != sender:
        pass
    os._exit(0)
