"""What the scripts ask Slurm for, by stand-ins for its programs; tests/distributed runs them under a real one."""
from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from mmengine.config import Config

from mmmamba.engine import prepare_distributed
from mmmamba.errors import InputError
from mmmamba.package_files import TOOLS

PROGRAMS = {
    'srun': 'echo "srun $*"; echo "port $MASTER_PORT"',
    'sbatch': 'for last; do :; done; echo "sbatch $*"; printf %s "$last" > "$WHERE/job.sh"',
    'scontrol': 'echo "scontrol $*"',
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A function that calls a script and returns what stand-ins of Slurm's programs printed."""

    def stand_in(name: str, text: str) -> None:
        (tmp_path / name).write_text(f'#!/bin/bash\n{text}\n')
        (tmp_path / name).chmod(0o755)

    for name, text in PROGRAMS.items():
        stand_in(name, text)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    monkeypatch.setenv('WHERE', str(tmp_path))
    for name in ('GPUS', 'TASKS', 'GPUS_PER_NODE', 'CPUS_PER_TASK', 'SRUN_ARGS', 'BATCH', 'GRACE', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)

    def call(script: str, *arguments: str, **variables: str) -> str:
        done = subprocess.run([TOOLS / script, *arguments], capture_output=True, text=True,
                              env={**os.environ, **variables})
        assert done.returncode == 0, done.stderr
        return done.stdout

    call.stand_in = stand_in
    return call


def test_training_asks_for_a_process_a_gpu(slurm):
    printed = slurm('slurm_train.sh', 'long', 'mine', 'a b.py', 'work', '--amp', GPUS='16',
                    SRUN_ARGS='--account=us -x n1')
    options, program = printed.splitlines()[0].split(' python -u ')
    assert set(options.split()) == {
        'srun', '--partition=long', '--job-name=mine', '--ntasks=16', '--ntasks-per-node=8', '--gres=gpu:8',
        '--cpus-per-task=5', '--kill-on-bad-exit=1', '--account=us', '-x', 'n1'}
    assert program == f'{TOOLS / "train.py"} a b.py --work-dir work --amp --launcher slurm'


@pytest.mark.parametrize('variables, options', [
    (dict(GPUS='0', TASKS='2'), {'--ntasks=2', '--ntasks-per-node=2'}),
    (dict(GPUS='0'), {'--ntasks=1', '--ntasks-per-node=1'}),
])
def test_without_gpus_none_are_asked_for(slurm, variables, options):
    printed = slurm('slurm_test.sh', 'cpus', 'mine', 'a.py', 'w.pth', **variables)
    assert options < set(printed.split()) and 'gres' not in printed
    assert f'{TOOLS / "test.py"} a.py w.pth --launcher slurm' in printed


def test_jobs_on_one_node_do_not_meet(slurm):
    ports = {slurm('slurm_train.sh', 'p', 'j', 'a.py', 'w').split()[-1] for _ in range(8)}
    assert len(ports) > 1 and all(20000 <= int(port) < 40000 for port in ports)
    assert slurm('slurm_train.sh', 'p', 'j', 'a.py', 'w', MASTER_PORT='29501').split()[-1] == '29501'


@pytest.mark.parametrize('stopped', [True, False])
def test_a_batch_job_is_queued_again_when_it_was_stopped_before_its_end(slurm, tmp_path, stopped):
    asked = slurm('slurm_train.sh', 'p', 'j', 'a b.py', 'w', GPUS='2', BATCH='1', GRACE='90', SRUN_ARGS='--time=60')
    assert {'--requeue', '--open-mode=append', '--signal=B:USR1@90', '--time=60', '--gres=gpu:2'} < set(asked.split())
    slurm.stand_in('srun', 'trap "exit 138" USR1; touch "$WHERE/started"; for i in {1..100}; do sleep 0.1; done'
                   if stopped else 'echo "$6"; exit 3')
    job = subprocess.Popen(['sh', tmp_path / 'job.sh'], stdout=subprocess.PIPE, text=True,
                           env={**os.environ, 'SLURM_JOB_ID': '7'})
    if stopped:
        while not (tmp_path / 'started').exists():
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
    printed, _ = job.communicate(timeout=20)
    assert printed == ('scontrol requeue 7\n' if stopped else 'a b.py\n')
    assert job.returncode == (138 if stopped else 3)


def test_a_batch_job_that_still_came_to_its_end_is_not_queued_again(slurm, tmp_path):
    slurm('slurm_train.sh', 'p', 'j', 'a.py', 'w', BATCH='1')
    slurm.stand_in('srun', 'trap "" USR1; touch "$WHERE/started"; sleep 0.5')
    with subprocess.Popen(['sh', tmp_path / 'job.sh'], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, 'SLURM_JOB_ID': '7', 'status': '1'}) as job:
        while not (tmp_path / 'started').exists():
            time.sleep(0.02)
        for _ in range(2):
            job.send_signal(signal.SIGUSR1)
            time.sleep(0.1)
        assert job.communicate(timeout=20)[0] == ''
    assert job.returncode == 0


@pytest.mark.parametrize('name', ["it's", 'a\nb', 'früchte', '$HOME `x` "y" &', ''])
def test_a_batch_job_gets_arguments_as_they_are(slurm, tmp_path, name):
    slurm('slurm_train.sh', 'p', 'j', 'a.py', 'w', name, BATCH='1', LC_ALL='C')
    slurm.stand_in('srun', 'for last; do printf "<%s>" "$last"; done')
    done = subprocess.run(['sh', tmp_path / 'job.sh'], capture_output=True, text=True)
    assert f'<w><{name}><--launcher>' in done.stdout and done.returncode == 0


@pytest.mark.parametrize('scontrol', ['echo broken; exit 1', None])
def test_without_scontrol_the_first_node_has_to_be_named(slurm, tmp_path, monkeypatch, scontrol):
    if scontrol:
        slurm.stand_in('scontrol', scontrol)
    else:
        monkeypatch.setenv('PATH', '')
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'):
        monkeypatch.setenv(name, '')  # put back after the test
    for name, value in dict(PROCID='0', LOCALID='0', NTASKS='2', NODELIST='n[1-2]').items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(InputError, match='set MASTER_ADDR to the first one'):
        prepare_distributed(Config(), 'slurm')


@pytest.mark.parametrize('script', ['slurm_train.sh', 'slurm_test.sh'])
def test_too_few_arguments_show_what_it_takes(script):
    done = subprocess.run([TOOLS / script, 'p'], capture_output=True, text=True)
    assert done.returncode == 2 and 'PARTITION JOB_NAME CONFIG' in done.stdout
    assert Path(TOOLS / script).name in done.stdout
