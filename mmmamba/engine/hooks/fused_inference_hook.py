"""Validation and testing in the passes for inference."""
from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmamba.deploy.fused_layers import fuse_layers, unfuse_layers


@HOOKS.register_module()
class FusedInferenceHook(Hook):
    """Has validation and testing on a CPU compute our blocks in fewer passes (:mod:`mmmamba.deploy.fused_layers`).

    The layers of the model get the forward for inference before, and their own one afterwards; parameters and what is
    saved stay as they are. On a GPU there are no such passes, and nothing is done.
    """

    priority = 'LOW'  # before checkpoints are saved

    def before_val_epoch(self, runner: Runner) -> None:
        """Puts the layers for inference in."""
        parameter = next(runner.model.parameters(), None)
        if parameter is not None and parameter.device.type == 'cpu':
            fuse_layers(runner.model)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Takes the layers for inference out."""
        unfuse_layers(runner.model)

    def before_test_epoch(self, runner: Runner) -> None:
        """Puts the layers for inference in."""
        self.before_val_epoch(runner)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Takes the layers for inference out."""
        unfuse_layers(runner.model)
