"""A run that is killed in the middle of an epoch and resumed ends with the weights of one that was not."""
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from mmengine.runner import Runner

from mmmamba.errors import InputError

import toy_training  # isort: skip  (this folder's)

pytestmark = pytest.mark.usefixtures('one_thread')  # as in the process that is killed


@pytest.fixture(scope='module')
def killed_runs(shared_coco_folder, tmp_path_factory) -> Path:
    """Folders of runs, by scenario, that were killed in the third iteration of epoch 3 of 4."""
    work_dirs = tmp_path_factory.mktemp('killed')
    ended = subprocess.run([sys.executable, toy_training.__file__, 'kill', str(shared_coco_folder), str(work_dirs)],
                           capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return work_dirs


def final_state(cfg, resume: bool = False) -> dict:
    cfg.resume = resume
    cfg.experiment_name = uuid4().hex  # mmengine's own are made of the second, and runs of one name share their log
    Runner.from_cfg(cfg).train()
    state = torch.load(Path(cfg.work_dir) / 'epoch_4.pth')
    assert state['meta']['iter'] == 16
    return state


@pytest.mark.parametrize('scenario', toy_training.SCENARIOS)
def test_killed_run_ends_as_if_it_had_not_been(shared_coco_folder, killed_runs, tmp_path, scenario):
    work_dir = killed_runs / scenario
    assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'epoch_2.pth')
    arguments = toy_training.SCENARIOS[scenario]
    # Neither the number of data workers nor whether there are any makes a difference.
    resumed = final_state(toy_training.config(shared_coco_folder, work_dir, **arguments), resume=True)
    whole = final_state(toy_training.config(shared_coco_folder, tmp_path / 'whole', **{**arguments, 'workers': 0}))
    toy_training.assert_same_end(whole, resumed)


def test_seed_of_the_checkpoint_is_taken_where_none_is_configured(shared_coco_folder, tmp_path):
    cfg = toy_training.config(shared_coco_folder, tmp_path / 'stopped', workers=0)
    cfg.randomness = dict(seed=None)
    whole = final_state(cfg)
    for name in ('epoch_3.pth', 'epoch_4.pth'):
        state = torch.load(tmp_path / 'stopped' / name)
        assert state['meta']['seed'] == whole['meta']['seed']
    (tmp_path / 'stopped' / 'last_checkpoint').write_text(str(tmp_path / 'stopped' / 'epoch_3.pth'))
    toy_training.assert_same_end(whole, final_state(cfg, resume=True))


def test_checkpoint_of_another_model_is_not_resumed(shared_coco_folder, tmp_path):
    cfg = toy_training.config(shared_coco_folder, tmp_path / 'other', workers=0, epochs=2)
    Runner.from_cfg(cfg).train()
    state = torch.load(tmp_path / 'other' / 'epoch_2.pth')
    state['state_dict'] = {name.replace('count', 'head'): value for name, value in state['state_dict'].items()}
    torch.save(state, tmp_path / 'other' / 'epoch_2.pth')
    cfg.resume = True
    with pytest.raises(InputError, match=r'2 weights are missing \(count\.weight, count\.bias\); 2 are unknown'):
        Runner.from_cfg(cfg).train()
