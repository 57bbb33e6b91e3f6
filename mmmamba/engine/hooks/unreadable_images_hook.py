"""Says which images training had to do without."""
from __future__ import annotations

import os.path as osp

from mmdet.registry import HOOKS
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner

_NAMED = 3


@HOOKS.register_module()
class UnreadableImagesHook(Hook):
    """After each epoch, one warning with the number and the first names of the images that could not be decoded.

    ``SeededDataset`` replaces such an image by another one and remembers it; the data workers' findings reach this
    process through shared memory. With another data set there is nothing to say.
    """

    def after_train_epoch(self, runner: Runner) -> None:
        """Collects the images of all processes and warns where there are any."""
        dataset = runner.train_dataloader.dataset
        found = dataset.unreadable_images() if hasattr(dataset, 'unreadable_images') else []
        paths = sorted({path for of_rank in all_gather_object(found) for path in of_rank})
        if paths:
            names = ', '.join(osp.basename(path) for path in paths[:_NAMED])
            more = ', …' if len(paths) > _NAMED else ''
            runner.logger.warning(f'Epoch {runner.epoch + 1}: {len(paths)} unreadable image(s) replaced by others so '
                                  f'far: {names}{more}')
