"""A sampler whose indices say in which epoch of which experiment they were drawn."""
from __future__ import annotations

from collections.abc import Iterator

from mmdet.registry import DATA_SAMPLERS
from mmengine.dataset import DefaultSampler


class SampleIndex(int):
    """An index into a data set that also carries the seed and the epoch it was drawn in.

    It is an ``int`` for everyone who does not ask. Travelling with the index, the epoch reaches data workers however
    they were started and however long they live.
    """

    seed: int
    epoch: int

    def __new__(cls, index: int, seed: int, epoch: int) -> SampleIndex:
        self = super().__new__(cls, index)
        self.seed = seed
        self.epoch = epoch
        return self

    def __getnewargs__(self) -> tuple[int, int, int]:
        return int(self), self.seed, self.epoch


@DATA_SAMPLERS.register_module()
class SeededSampler(DefaultSampler):
    """mmengine's ``DefaultSampler`` (same arguments, order and shares of processes) yielding :class:`SampleIndex`."""

    def __iter__(self) -> Iterator[SampleIndex]:
        return (SampleIndex(index, self.seed, self.epoch) for index in super().__iter__())
