"""A run on a CPU computes our blocks in fewer passes."""
from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmamba.deploy.fused_layers import fuse_layers, unfuse_layers
from mmmamba.ops.cpu import blocks


@HOOKS.register_module()
class FusedLayersHook(Hook):
    """Has training, validation and testing on a CPU compute our blocks in fewer passes: ``fuse_for_training``.

    The blocks of the model get their other forward before the run, and their own one back after it; parameters and
    what is saved stay as they are. Blocks with hooks in them are left alone (:mod:`mmmamba.deploy.fused_layers`), but
    hooks that come later are not called. On a GPU, or without the native library, there are no such passes, and
    nothing is done.
    """

    def before_run(self, runner: Runner) -> None:
        """Puts the fused layers in."""
        parameter = next(runner.model.parameters(), None)
        if parameter is not None and parameter.device.type == 'cpu' and blocks.unavailable() is None:
            fuse_layers(runner.model)

    def after_run(self, runner: Runner) -> None:
        """Takes them out."""
        unfuse_layers(runner.model)
