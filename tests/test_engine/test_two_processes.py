"""Two processes train as one does with twice the batch, stop together, and notice each other's end."""
from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmmamba.cli import describe
from mmmamba.engine import prepare_distributed
from mmmamba.errors import InputError

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
    Runner.from_cfg(toy_training.config(shared_coco_folder, tmp_path, workers=0, plain=True, batch_size=4,
                                        accumulate=3)).train()
    both, one = torch.load(two), torch.load(tmp_path / 'epoch_4.pth')
    assert both['meta']['iter'] == one['meta']['iter'] == 16
    for part in ('state_dict', 'ema_state_dict'):
        for name, value in one[part].items():
            torch.testing.assert_close(both[part][name], value, rtol=1e-4, atol=1e-6)
    assert both['optimizer']['param_groups'] == one['optimizer']['param_groups']


def test_both_processes_validate_the_same_model(two):
    assert torch.load(two)['message_hub']['log_scalars']['val/toy/models'].current() == 1


def test_a_signal_to_one_process_stops_both_after_the_same_step(shared_coco_folder, tmp_path, two):
    """Three iterations are a step; the second one is over after the sixth, in which the signal comes."""
    assert train(shared_coco_folder, tmp_path, '5').count('stopped by SIGUSR1') == 2
    assert torch.load(tmp_path / 'stopped.pth')['meta']['iter'] == 9
    train(shared_coco_folder, tmp_path)
    toy_training.assert_same_end(torch.load(tmp_path / 'epoch_4.pth'), torch.load(two))


@pytest.mark.skipif(sys.platform != 'linux', reason='the system has no such signal')
def test_the_end_of_torchrun_ends_its_processes(monkeypatch):
    """Also one that is killed, and cannot end them itself."""
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)  # so that nothing else is prepared
    end_of_process, output = os.pipe()
    torchrun = os.fork()
    if torchrun == 0:
        if os.fork() == 0:
            prepare_distributed(Config(), 'pytorch')
            os.write(output, b'ready')
            time.sleep(60)
            os._exit(1)
        time.sleep(60)
        os._exit(1)
    os.close(output)
    toy_training.assert_dies_with(torchrun, end_of_process, seconds=10)


def test_a_process_whose_torchrun_has_ended_does_not_wait_for_it(monkeypatch):
    with socket.socket() as nobody_listens:
        nobody_listens.bind(('localhost', 0))
        where = {'MASTER_ADDR': 'localhost', 'MASTER_PORT': str(nobody_listens.getsockname()[1])}
        for name, value in {'TORCHELASTIC_RUN_ID': 'none', 'TORCHELASTIC_USE_AGENT_STORE': 'True', **where}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr('mmmamba.engine.processes.signal_at_end_of_parent', lambda number: None)
        with pytest.raises(InputError, match='where the processes of this run meet, has ended'):
            prepare_distributed(Config(), 'pytorch')


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
