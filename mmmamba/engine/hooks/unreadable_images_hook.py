"""Says which images training had to do without."""
from __future__ import annotations

import os.path as osp
from collections.abc import Iterator
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmamba.errors import first_names


@HOOKS.register_module()
class UnreadableImagesHook(Hook):
    """After each epoch, one warning with the number and the first names of the images that could not be used.

    Our data sets, in whatever wrappers, replace such an image by another one and remember it; the data workers'
    findings reach this process through shared memory. With other data sets there is nothing to say.
    """

    def after_train_epoch(self, runner: Runner) -> None:
        """Collects the images of all processes and warns if there are any."""
        found = list(_left_out_images(runner.train_dataloader.dataset))
        paths = sorted({path for of_rank in all_gather_object(found) for path in of_rank})
        if paths:
            runner.logger.warning(f'Epoch {runner.epoch + 1}: {len(paths)} unreadable image(s) replaced by others so '
                                  f'far: {first_names([osp.basename(path) for path in paths])}')


def _left_out_images(dataset: Any) -> Iterator[str]:
    """Paths of the images that a data set, or one inside of it, has left out so far."""
    if hasattr(dataset, 'left_out'):
        yield from (dataset.get_data_info(index)['img_path'] for index in dataset.left_out.indices())
    wrapped = (getattr(dataset, name, None) for name in ('dataset', '_dataset'))  # _dataset: MultiImageMixDataset's
    for inner in (*wrapped, *getattr(dataset, 'datasets', ())):
        if inner is not None:
            yield from _left_out_images(inner)
