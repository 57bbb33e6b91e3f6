"""A sample depends on (seed, epoch, index) and on nothing else."""
import pickle
import random

import numpy as np
import pytest
import torch
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmengine.dataset import DefaultSampler, pseudo_collate
from torch.utils.data import DataLoader

from mmmamba.datasets import SampleIndex, SeededSampler
from mmmamba.errors import InputError
from mmmamba.seeding import seed_everything, seeded


@pytest.fixture
def dataset(shared_coco_folder, mmdet_scope):
    return make(shared_coco_folder)


def make(folder, **arguments):
    pipeline = [dict(type='Mosaic', img_scale=(32, 32)), dict(type='CenteredRandomAffine', border=(-16, -16)),
                dict(type='RandomHSV'), dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]
    return DATASETS.build({**dict(
        type='SeededDataset', pipeline=pipeline, dataset=dict(
            type='CheckedCocoDataset', data_root=str(folder), ann_file='annotations/train.json',
            data_prefix=dict(img='train'), metainfo=dict(classes=('square', 'wide', 'tall')),
            pipeline=[dict(type='LoadCheckedImage'), dict(type='LoadAnnotations', with_bbox=True)])), **arguments})


def loaded(dataset, epoch, workers, persistent=False, epochs_before=0):
    """The samples of an epoch, by index, after other epochs were loaded."""
    sampler = SeededSampler(dataset, seed=3)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers, collate_fn=pseudo_collate,
                        persistent_workers=persistent)
    samples = {}
    for current in [*range(epochs_before), epoch]:
        sampler.set_epoch(current)
        order = list(map(int, sampler))
        batches = list(loader)
        images = [image for batch in batches for image in batch['inputs']]
        boxes = [sample.gt_instances.bboxes.tensor for batch in batches for sample in batch['data_samples']]
        samples = dict(zip(order, zip(images, boxes)))
    return samples


def equal(first, second):
    return all(torch.equal(one, other) for one, other in zip(first, second))


def test_same_epoch_same_samples_whoever_loads_them(dataset):
    expected = loaded(dataset, epoch=2, workers=0)
    assert len(expected) == 16
    random.seed(0), np.random.seed(1), torch.manual_seed(2)
    for options in (dict(workers=0), dict(workers=2), dict(workers=1, persistent=True, epochs_before=2)):
        found = loaded(dataset, epoch=2, **options)
        assert all(equal(expected[index], found[index]) for index in expected), options


def test_epochs_indices_and_seeds_differ(dataset):
    by_key = {key: dataset[SampleIndex(*key)]['inputs'] for key in [(0, 3, 0), (0, 3, 1), (0, 4, 0), (1, 3, 0)]}
    keys = list(by_key)
    assert all(not torch.equal(by_key[a], by_key[b]) for i, a in enumerate(keys) for b in keys[:i])


def test_states_of_the_caller_are_left_alone(dataset):
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()
    dataset[SampleIndex(0, 1, 1)]
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert np.random.get_state()[1].tolist() == states[2]


def test_plain_indices_use_the_callers_states(dataset):
    seed_everything(1)
    first = dataset[0]['inputs']
    assert not torch.equal(first, dataset[0]['inputs'])
    seed_everything(1)
    assert torch.equal(first, dataset[0]['inputs'])


def test_seeding_without_its_sampler_is_noticed(dataset):
    class OfWorker:
        id = 0
    import mmmamba.datasets.seeded_dataset as module
    original, module.get_worker_info = module.get_worker_info, OfWorker
    try:
        with pytest.warns(UserWarning, match='SeededSampler'):
            dataset[0]
    finally:
        module.get_worker_info = original


def test_it_serves_what_the_inner_data_set_serves(dataset):
    assert len(dataset) == len(dataset.dataset) == 16
    assert dataset.metainfo['classes'] == ('square', 'wide', 'tall')
    assert dataset.get_data_info(2) == dataset.dataset.get_data_info(2)
    assert dataset.get_cat_ids(2) == dataset.dataset.get_cat_ids(2)
    dataset.full_init()


def test_it_wraps_concatenations_and_repetitions(shared_coco_folder, mmdet_scope):
    inner = make(shared_coco_folder).dataset
    both = DATASETS.build(dict(type='ConcatDataset', datasets=[inner, inner]))
    wrapped = make(shared_coco_folder, dataset=both)
    assert len(wrapped) == 32
    assert torch.equal(wrapped[SampleIndex(20, 0, 0)]['inputs'], wrapped[SampleIndex(20, 0, 0)]['inputs'])


def test_a_pipeline_without_mixing_and_none_at_all(shared_coco_folder, mmdet_scope):
    plain = make(shared_coco_folder, pipeline=[dict(type='PackDetInputs')])
    assert plain[SampleIndex(0, 0, 0)]['inputs'].shape == (3, 48, 64)
    assert make(shared_coco_folder, pipeline=[])[SampleIndex(0, 0, 0)]['img'].shape == (48, 64, 3)


def test_rejected_samples_are_replaced_reproducibly(dataset):
    rejected = []

    def rejecting(results):
        if len(rejected) < 3:
            rejected.append(results['img_id'])
            return None
        return results

    dataset.pipeline.transforms = [rejecting]
    first = dataset[SampleIndex(0, 1, 1)]['img_id']
    tried, rejected[:] = list(rejected), []
    assert dataset[SampleIndex(0, 1, 1)]['img_id'] == first
    assert rejected == tried

    dataset.pipeline.transforms = [lambda results: None]
    with pytest.raises(InputError, match='rejected 15 samples'):
        dataset[0]


@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_sampler_is_mmengines_in_order_and_shares(monkeypatch, world_size):
    everything = []
    for rank in range(world_size):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, world_size))
        ours = DATA_SAMPLERS.build(dict(type='SeededSampler', dataset=range(10), seed=7))
        theirs = DefaultSampler(range(10), seed=7)
        for sampler in (ours, theirs):
            sampler.set_epoch(4)
        assert list(ours) == list(theirs)
        assert {(index.seed, index.epoch) for index in ours} == {(7, 4)}
        everything += list(ours)
    assert set(everything) == set(range(10))


def test_two_processes_load_what_one_loads_with_twice_the_batch(monkeypatch):
    def batches(rank, world_size, batch_size):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (rank, world_size))
        sampler = SeededSampler(range(16), seed=7)
        keys = [(int(index), index.seed, index.epoch) for index in sampler]
        return [set(keys[start:start + batch_size]) for start in range(0, len(keys), batch_size)]

    alone = batches(0, 1, 8)
    assert alone == [first | second for first, second in zip(batches(0, 2, 4), batches(1, 2, 4))]


def test_index_survives_the_way_to_a_worker():
    index = pickle.loads(pickle.dumps(SampleIndex(5, 1, 2)))
    assert (index, index.seed, index.epoch) == (5, 1, 2)
    assert ['a'] * index == ['a'] * 5


def test_streams_are_independent():
    def draw(*key):
        with seeded(*key):
            return random.random(), np.random.rand(), float(torch.rand(()))

    keys = [(0,), (0, 0), (0, 1), (0, 0, 1), (0, 1, 0), (1, 0), (0, 0, 0)]
    draws = [draw(*key) for key in keys]
    assert all(len(set(column)) == len(keys) for column in zip(*draws))
    assert draws == [draw(*key) for key in keys]
