"""mmengine's training loop, which can begin in the middle of an epoch."""
from __future__ import annotations

from itertools import islice

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop`` (same arguments), which can begin in the middle of an epoch.

    Attributes:
        first_batch: How many batches of the next epoch were trained on before; they are not loaded again. Set by
            :class:`~mmmamba.engine.hooks.StopSignalHook`, before training, when a run is resumed.
    """

    first_batch = 0

    def run_epoch(self) -> None:
        """Trains for an epoch, or for what is left of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first, self.first_batch = self.first_batch, 0
        batches = _without_first(self.dataloader, first) if first else self.dataloader
        for index, batch in enumerate(batches, start=first):
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


def _without_first(loader: DataLoader, batches: int) -> DataLoader:
    """Returns a loader of the same epoch without its first batches, of which no image is read."""
    return DataLoader(
        loader.dataset,
        batch_sampler=list(islice(loader.batch_sampler, batches, None)),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor)
