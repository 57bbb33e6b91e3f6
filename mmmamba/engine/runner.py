"""mmengine's runner with what holds for every config that our tools run."""
from __future__ import annotations

import logging

from mmdet.engine.hooks import PipelineSwitchHook
from mmdet.registry import RUNNERS
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from mmmamba.engine.console import Console
from mmmamba.engine.hooks.class_count_hook import ClassCountHook
from mmmamba.engine.hooks.config_on_resume_hook import ConfigOnResumeHook
from mmmamba.engine.hooks.fused_layers_hook import FusedLayersHook
from mmmamba.engine.hooks.progress_hook import ProgressHook
from mmmamba.engine.hooks.unreadable_images_hook import UnreadableImagesHook
from mmmamba.engine.hooks.validation_hooks import EncodedMasksHook

_OF_WORKERS = ('persistent_workers', 'prefetch_factor', 'timeout', 'multiprocessing_context')


@RUNNERS.register_module()
class CheckedRunner(Runner):
    """mmengine's ``Runner`` for any config, those of mmdet's recipes included.

    It has :class:`ClassCountHook`, :class:`ConfigOnResumeHook`, :class:`EncodedMasksHook`, :class:`FusedLayersHook`,
    :class:`UnreadableImagesHook` and :class:`ProgressHook` even if the config does not list them, its data loaders
    work with ``num_workers=0``, whatever the config says of workers, and it warns of a pipeline that would be switched
    to after the end. The screen shows the progress and warnings, as its ``console`` decides; with
    ``log_level='DEBUG'`` it shows the whole log.
    """

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, seed: int | None = None,
                         diff_rank_seed: bool = False) -> DataLoader:
        """Builds a loader as ``Runner`` does; without workers, their settings, which PyTorch refuses, are left out."""
        if isinstance(dataloader, dict) and not dataloader.get('num_workers'):
            dataloader = {key: value for key, value in dataloader.items() if key not in _OF_WORKERS}
        return Runner.build_dataloader(dataloader, seed, diff_rank_seed)

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
                       ProgressHook):
            if not any(isinstance(hook, needed) for hook in self.hooks):
                self.register_hook(needed())

    def train(self) -> nn.Module:
        """Trains, after a warning if the last part of the recipe (without mosaic) lies beyond the end."""
        with self.console.watch():
            if isinstance(self.train_loop, EpochBasedTrainLoop):
                epochs = self.train_loop.max_epochs
                for hook in self.hooks:
                    if isinstance(hook, PipelineSwitchHook) and hook.switch_epoch >= epochs:
                        self.logger.warning(f'PipelineSwitchHook.switch_epoch is {hook.switch_epoch}, '
                                            f'train_cfg.max_epochs {epochs}: the pipeline is never switched.')
            return super().train()

    def val(self) -> dict[str, float]:
        """Validates."""
        with self.console.watch():
            return super().val()

    def test(self) -> dict[str, float]:
        """Tests."""
        with self.console.watch():
            return super().test()
