"""Validates a resumed run that may have been stopped before it was."""
from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


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
        if runner.val_loop is not None and due and loop.epoch >= max(loop.val_begin, 1):
            runner.val_loop.run()
