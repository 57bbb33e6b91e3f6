"""Two processes train as one does with twice the batch, stop together, and notice each other's end."""
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from mmmamba.cli import describe

import toy_training  # isort: skip  (this folder's)


def train(data: Path, work_dir: Path, *stop: str) -> str:
    """Trains, or goes on, and returns what both processes printed."""
    program = [sys.executable, toy_training.__file__, 'two', data, work_dir, *stop]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0 or 'KillHook' in stop, ended.stderr[-2000:]
    return ended.stdout


@pytest.fixture(scope='module')
def two(shared_coco_folder, tmp_path_factory) -> Path:
    """The last checkpoint of an undisturbed run."""
    work_dir = tmp_path_factory.mktemp('two')
    train(shared_coco_folder, work_dir)
    return work_dir / 'epoch_4.pth'


def test_two_processes_equal_one_with_twice_the_batch(shared_coco_folder, tmp_path, two):
    Runner.from_cfg(toy_training.config(shared_coco_folder, tmp_path, workers=0, plain=True, batch_size=4)).train()
    both, one = torch.load(two), torch.load(tmp_path / 'epoch_4.pth')
    assert both['meta']['iter'] == one['meta']['iter'] == 16
    for part in ('state_dict', 'ema_state_dict'):
        for name, value in one[part].items():
            torch.testing.assert_close(both[part][name], value, rtol=1e-4, atol=1e-6)
    assert both['optimizer']['param_groups'] == one['optimizer']['param_groups']


def test_a_signal_to_one_process_stops_both_after_the_same_iteration(shared_coco_folder, tmp_path, two):
    assert train(shared_coco_folder, tmp_path, '5').count('stopped by SIGUSR1') == 2
    assert torch.load(tmp_path / 'stopped.pth')['meta']['iter'] in (6, 7)
    train(shared_coco_folder, tmp_path)
    toy_training.assert_same_end(torch.load(tmp_path / 'epoch_4.pth'), torch.load(two))


def test_the_end_of_a_process_ends_the_other_with_one_line(shared_coco_folder, tmp_path):
    printed = train(shared_coco_folder, tmp_path, '6', 'KillHook')
    assert printed.startswith('the contact to another process of this run is lost; if it ended, it said why: ')
    assert printed.count('\n') == 1
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')


@pytest.mark.parametrize('reason', ['Broken pipe', 'No route to host', 'Connection timed out', 'Connection refused'])
def test_a_lost_network_is_one_line(reason):
    error = f'[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] writev [10.0.0.2]:4242: {reason}'
    assert 'the contact to another process' in describe(RuntimeError(error))
    assert describe(RuntimeError(reason)) is None
