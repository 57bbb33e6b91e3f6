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

    The data set (``CheckedCocoDataset``) replaces such an image by another one and remembers it; the data workers'
    findings reach this process through shared memory.
    """

    def after_train_epoch(self, runner: Runner) -> None:
        """Collects the images of all processes and warns where there are any."""
        found = [path for dataset in _leaves(runner.train_dataloader.dataset)
                 if hasattr(dataset, 'unreadable_images') for path in dataset.unreadable_images()]
        paths = sorted({path for of_rank in all_gather_object(found) for path in of_rank})
        if paths:
            names = ', '.join(osp.basename(path) for path in paths[:_NAMED])
            more = ', …' if len(paths) > _NAMED else ''
            runner.logger.warning(f'Epoch {runner.epoch + 1}: {len(paths)} unreadable image(s) replaced by others so '
                                  f'far: {names}{more}')


def _leaves(dataset):
    """Yields the data sets inside wrappers (``.dataset``) and concatenations (``.datasets``)."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner == [None]:
        yield dataset
    else:
        for child in inner:
            yield from _leaves(child)
