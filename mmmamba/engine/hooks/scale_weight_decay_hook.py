"""Weight decay in proportion to the batch that a step sees."""
from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class ScaleWeightDecayHook(Hook):
    """Multiplies every group's weight decay by (images per optimizer step) / ``base_batch_size``, once, at the start.

    Images per step are counted from what really runs: the loader's batch size × processes × ``accumulative_counts``.
    Unlike ``auto_scale_lr`` this is part of the YOLOv8 recipe and always on: its learning rate is meant for any batch,
    its weight decay for a batch of 64.

    Args:
        base_batch_size: The batch that the configured weight decay is meant for.
    """

    def __init__(self, base_batch_size: int = 64) -> None:
        self.base_batch_size = base_batch_size

    def before_train(self, runner: Runner) -> None:
        """Scales from the configured value, which is kept in the groups, so that resuming does not scale twice."""
        loader = runner.train_dataloader
        batch_size = loader.batch_size if loader.batch_size is not None else loader.batch_sampler.batch_size
        images = batch_size * runner.world_size * runner.optim_wrapper._accumulative_counts
        for group in runner.optim_wrapper.optimizer.param_groups:
            base = group.setdefault('initial_weight_decay', group['weight_decay'])
            group['weight_decay'] = base * images / self.base_batch_size
        runner.logger.info(f'Weight decay is scaled by {images}/{self.base_batch_size}: images per optimizer step '
                           f'over the batch it was configured for.')
