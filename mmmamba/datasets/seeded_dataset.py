"""Samples that depend on seed, epoch and index, and on nothing that happened before: a sampler and a data set."""
from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from mmcv.transforms import Compose
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmengine.dataset import BaseDataset, DefaultSampler
from torch.utils.data import get_worker_info

from mmmamba.datasets.checked_images import LeftOut, blaming_the_image
from mmmamba.datasets.transforms.load_checked_image import UnreadableImageError
from mmmamba.errors import InputError
from mmmamba.seeding import seeded

_MAX_REFETCH = 15


class SampleIndex(int):
    """An index into a data set that also carries the seed and the epoch it was drawn in.

    It is an ``int`` for everyone who does not ask. Travelling with the index, the epoch reaches data workers however
    they were started and however long they live.
    """

    seed: int
    epoch: int

    def __new__(cls, index: int, seed: int, epoch: int) -> SampleIndex:
        self = super().__new__(cls, index)
        self.seed, self.epoch = seed, epoch
        return self

    def __getnewargs__(self) -> tuple[int, int, int]:
        return int(self), self.seed, self.epoch


@DATA_SAMPLERS.register_module()
class SeededSampler(DefaultSampler):
    """mmengine's ``DefaultSampler`` (same arguments, order and shares of processes) yielding :class:`SampleIndex`."""

    def __iter__(self) -> Iterator[SampleIndex]:
        return (SampleIndex(index, self.seed, self.epoch) for index in super().__iter__())


@DATASETS.register_module()
class SeededDataset:
    """Wraps a data set so that every sample is drawn with random states made from (seed, epoch, index).

    A sample is then the same whichever worker loads it, with any number of workers and processes, and after resuming.
    mmengine's workers start every epoch with the same state (or go on with that of the last one, where they persist),
    so their samples depend on which of them loaded what before. Needs ``sampler=dict(type='SeededSampler')``; a plain
    index, as in ``dataset[3]``, is served with whatever state there is.

    ``pipeline`` runs after the wrapped data set's own and may mix images: a transform with ``get_indexes`` (mmdet's
    ``Mosaic``, ``MixUp``) finds the other samples in ``results['mix_results']``, as in mmdet's
    ``MultiImageMixDataset``, but nothing is copied. mmdet's ``PipelineSwitchHook`` replaces this pipeline, which is
    how mosaic ends before training does.

    An image that cannot be used, because its file is damaged or a transform cannot take its shape, is replaced by
    another one, with a warning; once most of the images cannot, an :class:`InputError` ends the training.

    Args:
        dataset: The data set to wrap, or its config.
        pipeline: Transforms to apply to its samples; none by default.
    """

    def __init__(self, dataset: BaseDataset | dict, pipeline: Sequence[dict] = ()) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.pipeline = Compose(pipeline)
        self.full_init()

    @property
    def metainfo(self) -> dict:
        """Returns a copy of the wrapped data set's meta information (classes, palette)."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Loads the annotations, if the wrapped data set has not yet."""
        self.dataset.full_init()
        self.left_out = LeftOut(len(self))

    def get_data_info(self, index: int) -> dict:
        """Returns the annotation of a sample."""
        return self.dataset.get_data_info(index)

    def get_cat_ids(self, index: int) -> list[int]:
        """Returns the categories in a sample."""
        return self.dataset.get_cat_ids(index)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        if isinstance(index, SampleIndex):
            with seeded(index.seed, index.epoch, int(index)):
                return self._load(int(index))
        if get_worker_info() is not None:
            warnings.warn("SeededDataset is not seeded: use sampler=dict(type='SeededSampler')", stacklevel=2)
        return self._load(index)

    def _load(self, index: int) -> dict:
        for _ in range(_MAX_REFETCH):
            results = self._readable(index)
            try:
                with blaming_the_image(results.get('img_path', f'number {index}'), results):
                    results = self._apply_pipeline(results)
            except UnreadableImageError as error:
                self.left_out.add(index, error)
            else:
                if results is not None:
                    return results
            index = np.random.randint(len(self))
        raise InputError(f'the pipeline rejected {_MAX_REFETCH} samples in a row; which transform returns None?')

    def _readable(self, index: int) -> dict:
        """Returns the wrapped data set's sample ``index``, or a random other one if its image cannot be used."""
        while True:
            try:
                return self.dataset[index]
            except UnreadableImageError as error:
                self.left_out.add(index, error)
                index = np.random.randint(len(self))

    def _apply_pipeline(self, results: dict) -> dict | None:
        for transform in self.pipeline:
            if hasattr(transform, 'get_indexes'):
                others = np.atleast_1d(transform.get_indexes(self.dataset))
                results['mix_results'] = [self._readable(int(other)) for other in others]
            results = transform(results)
            if results is None:
                return None
            results.pop('mix_results', None)
        return results
