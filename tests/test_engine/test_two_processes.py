"""Two processes train as one does with twice the batch."""
import subprocess
import sys

import torch
from mmengine.runner import Runner

import toy_training  # isort: skip  (this folder's)


def test_the_end_of_a_process_ends_the_other_with_one_line(shared_coco_folder, tmp_path):
    program = [sys.executable, toy_training.__file__, 'two', shared_coco_folder, tmp_path, '6', 'KillHook']
    ended = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert ended.stdout.startswith('the contact to another process of this run is lost; if it ended, it said why: ')
    assert ended.stdout.count('\n') == 1
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')


def test_two_processes_equal_one_with_twice_the_batch(shared_coco_folder, tmp_path):
    program = [sys.executable, toy_training.__file__, 'two', str(shared_coco_folder), str(tmp_path / 'two')]
    ended = subprocess.run(program, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    Runner.from_cfg(toy_training.config(
        shared_coco_folder, tmp_path / 'one', workers=0, plain=True, batch_size=4)).train()

    two, one = (torch.load(tmp_path / name / 'epoch_4.pth') for name in ('two', 'one'))
    assert two['meta']['iter'] == one['meta']['iter'] == 16
    for part in ('state_dict', 'ema_state_dict'):
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=1e-4, atol=1e-6)
    assert two['optimizer']['param_groups'] == one['optimizer']['param_groups']
