"""Settings for runs on many GPUs, each in two processes over gloo: what they change, and what they leave."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmmamba.engine import CheckedDataParallel, prepare_distributed
from mmmamba.errors import InputError

import toy_training  # isort: skip  (this folder's)

PARAMETERS, STEPS = 817, 4


class Used(NamedTuple):
    """What a process needed."""
    reductions: int
    bytes: int
    optimizer_numbers: int


class Trained(NamedTuple):
    """The folder of all runs, what each process of each needed, and the groups of SyncBN."""
    folder: Path
    used: dict[tuple[str, int], Used]
    groups: list[str]

    def end(self, name: str) -> dict:
        return torch.load(self.folder / name / 'epoch_2.pth')


@pytest.fixture(scope='module')
def trained(shared_coco_folder, tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp('options')
    program = [sys.executable, toy_training.__file__, 'options', shared_coco_folder, folder]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    used, groups = {}, []
    for line in ended.stdout.splitlines():
        kind, *words = line.split()
        if kind == 'group':
            groups.append(' '.join(words))
        elif kind in toy_training.OPTIONS:
            used[kind, int(words[0])] = Used(*map(int, words[1:]))
    return Trained(folder, used, groups)


def test_smaller_buckets_give_the_same_weights(trained):
    toy_training.assert_same_end(trained.end('plain'), trained.end('buckets'))
    toy_training.assert_same_end(trained.end('bfloat16'), trained.end('bfloat16-buckets'))
    assert trained.used['bfloat16', 0].reductions == STEPS
    assert trained.used['bfloat16-buckets', 0].reductions == 2 * STEPS


def test_gradients_in_bfloat16_are_half_the_bytes_and_nearly_the_same(trained):
    for rank in range(2):
        assert trained.used['bfloat16', rank].bytes == 2 * PARAMETERS * STEPS
        assert trained.used['plain', rank].bytes == 0  # of what Python sends
    plain, compressed = trained.end('plain')['state_dict'], trained.end('bfloat16')['state_dict']
    momenta = [state['optimizer']['state'] for state in (trained.end('plain'), trained.end('bfloat16'))]
    assert any(not torch.equal(plain[name], compressed[name]) for name in plain)
    for one, two in zip(*(part.values() for part in momenta)):  # sums of the gradients
        error = (one['momentum_buffer'] - two['momentum_buffer']).abs().max()
        assert 0 < error < 2**-7 * one['momentum_buffer'].abs().max()


def test_a_divided_optimizer_gives_the_same_weights_and_checkpoint(trained):
    plain, divided = trained.end('plain'), trained.end('zero')
    toy_training.assert_same_end(plain, divided)
    states = [{number: value['momentum_buffer'] for number, value in end['optimizer']['state'].items()}
              for end in (plain, divided)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][number], states[1][number]) for number in states[0])
    kept = [trained.used['zero', rank].optimizer_numbers for rank in range(2)]
    assert sum(kept) == PARAMETERS == trained.used['plain', 0].optimizer_numbers
    assert max(kept) == 8 * 8 * 9  # the largest parameter, which is not divided


def test_a_divided_optimizer_goes_on_in_one_process(trained, shared_coco_folder, tmp_path):
    cfg = toy_training.config(shared_coco_folder, tmp_path, workers=0, plain=True, epochs=2, accumulate=2)
    cfg.resume, cfg.load_from = True, str(trained.folder / 'zero' / 'epoch_1.pth')
    toy_training.train(cfg)
    one, two = torch.load(tmp_path / 'epoch_2.pth'), trained.end('zero')
    for name, value in one['state_dict'].items():
        torch.testing.assert_close(two['state_dict'][name], value, rtol=1e-4, atol=1e-6)


def test_it_is_no_other_optimizer_for_being_divided(trained, shared_coco_folder, tmp_path):
    cfg = toy_training.config(shared_coco_folder, tmp_path, workers=0, plain=True)
    cfg.optim_wrapper.optimizer = dict(type='AdamW', lr=0.01)
    cfg.resume, cfg.load_from = True, str(trained.folder / 'zero' / 'epoch_1.pth')
    with pytest.raises(InputError, match="the checkpoint's optimizer is 'SGD', the config's 'AdamW'"):
        toy_training.train(cfg)


def test_all_of_them_in_float16_resume_exactly_in_the_middle_of_an_epoch(trained):
    assert trained.used['all', 0].reductions > STEPS
    toy_training.assert_same_end(trained.end('all'), trained.end('all-resumed'))


def test_groups_that_normalise_together(trained):
    refused = 'model_wrapper_cfg.sync_bn_group must divide the number of processes, 2; it is 3'
    for rank in range(2):
        assert [line for line in trained.groups if line.startswith(str(rank))] == [
            f'{rank} {rank}', f'{rank} 0 1', f'{rank} {refused}']


@pytest.mark.parametrize('settings, words', [
    (dict(gradient_dtype='float16'), "must be 'float32' or 'bfloat16', not 'float16'"),
    (dict(sync_bn_group=8), 'set sync_bn=torch as well'),
])
def test_settings_that_cannot_be_used_are_named(settings, words):
    with pytest.raises(InputError, match=words):
        CheckedDataParallel(nn.Conv2d(3, 4, 1), **settings)


def test_sync_bn_on_a_cpu_is_refused():
    with pytest.raises(InputError, match='SyncBN needs GPUs'):
        CheckedDataParallel(nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4)))


def test_a_setting_of_the_wrapper_changes_no_other(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    for named, kind in (('bucket_cap_mb', 'MMDistributedDataParallel'), ('sync_bn_group', 'CheckedDataParallel')):
        cfg = Config(dict(model_wrapper_cfg={named: 5}, find_unused_parameters=True))
        prepare_distributed(cfg, 'pytorch')
        assert cfg.model_wrapper_cfg == dict(type=kind, broadcast_buffers=False, find_unused_parameters=True,
                                             **{named: 5})
    plain = Config()
    prepare_distributed(plain, 'pytorch')
    assert 'model_wrapper_cfg' not in plain
    other = Config(dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')))
    prepare_distributed(other, 'pytorch')
    assert other.model_wrapper_cfg == dict(type='MMFullyShardedDataParallel')


def test_one_process_has_nothing_to_divide(shared_coco_folder, tmp_path):
    cfg = toy_training.config(shared_coco_folder, tmp_path, workers=0)
    cfg.optim_wrapper.optimizer.update(toy_training.ZERO)
    with pytest.raises(InputError, match='set optim_wrapper.optimizer.type=SGD, and leave out optimizer_type'):
        toy_training.train(cfg)
