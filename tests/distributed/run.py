"""Trains under Slurm and on two hosts, while jobs are cancelled, processes die, networks and disks fail.

Every case ends with the weights of one undisturbed run of two processes, bit by bit, or with one line that says what
is wrong. Prints a table, and exits with 1 if a case fails.

Usage: run.py [NAME ...]     the cases whose names begin so; all of them by default
"""
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests'), str(Path(__file__).parent)]

from places import descendants, run, slurm, two_hosts, wait_until  # noqa: E402
from three_formats import compose_pictures, write_coco, write_yolo  # noqa: E402

from mmmamba.analysis.compare.runs import read_records  # noqa: E402  (mmmamba allows checkpoints to be read)

TOOLS, CONFIG, EPOCHS = ROOT / 'tools', 'yolov8_n', 12
TIMEOUT = 15  # seconds that processes wait for each other
OTHER_TIME = """import os, time
true_time = time.time
time.time = lambda: true_time() + 3600 * int(os.environ['HOURS_AHEAD'])
"""


@dataclass
class Lab:
    """Where the cases run.

    Args:
        folder: For everything that they write.
        environment: Variables of all processes.
    """

    folder: Path
    environment: dict[str, str]
    started: list[subprocess.Popen] = field(default_factory=list)

    def options(self, *more: object, data: str = 'coco') -> list[str]:
        return [str(word) for word in (
            '--data', self.folder / data, '--image-size', 64, '--epochs', EPOCHS,
            '--batch-size', 4, '--workers', 1, '--cfg-options', f'env_cfg.dist_cfg.timeout={TIMEOUT}', *more)]

    def start(self, name: str, command: Sequence[object], where: str = '.', **variables: str) -> subprocess.Popen:
        """Starts a command, in a folder, whose output goes to NAME.log."""
        (self.folder / where).mkdir(exist_ok=True)
        with (self.folder / f'{name}.log').open('a') as log:
            process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=subprocess.STDOUT,
                                       cwd=self.folder / where, env={**self.environment, **variables})
        self.started.append(process)
        return process

    def end(self) -> None:
        """Ends what a case that failed has left."""
        while self.started:
            process = self.started.pop()
            if process.poll() is None:
                process.terminate()
                process.wait()

    def on_slurm(self, name: str, *more: object, **variables: str) -> subprocess.Popen:
        return self.start(name, [TOOLS / 'slurm_train.sh', 'cpu', name, CONFIG, name, *self.options(*more)],
                          **{'GPUS': '0', 'TASKS': '2', 'CPUS_PER_TASK': '1', **variables})

    def on_hosts(self, name: str, *more: object, hosts: Sequence[int] = (0, 1), **variables: str
                 ) -> list[subprocess.Popen]:
        """Trains on both hosts, which share the work dir alone, from labels that both must convert."""
        return [self.start(f'{name}_{host}', ['ip', 'netns', 'exec', f'h{host}', TOOLS / 'dist_train.sh', CONFIG, 1,
                                              '--work-dir', self.folder / name, *self.options(*more, data='yolo')],
                           f'cwd_{host}', **{'NNODES': '2', 'NODE_RANK': str(host), 'MASTER_ADDR': '10.9.0.1',
                              'GLOO_SOCKET_IFNAME': f'v{host}', 'XDG_CACHE_HOME': f'{self.folder}/cache_{host}',
                              **variables}) for host in hosts]

    def log(self, name: str) -> str:
        return (self.folder / f'{name}.log').read_text()

    def errors(self, name: str) -> list[str]:
        """Returns the lines that say what failed, after making sure that there is nothing longer."""
        lines = self.log(name).splitlines()
        assert not any('Traceback' in line for line in lines), lines
        return [line for line in lines if line.startswith('error: ')]

    def trains(self, name: str, epoch: int = 3) -> None:
        """Waits until a run has trained so many epochs."""
        wait_until(lambda: (self.folder / name / f'epoch_{epoch}.pth').exists()
                   or (self.folder / name / f'epoch_{epoch + 1}.pth').exists(), 180)

    def equals_undisturbed(self, name: str) -> str:
        """Compares the last checkpoint and all validations with those of the run that nothing disturbed."""
        runs = self.folder / name, self.folder / 'undisturbed'
        require_same_weights(*(folder / f'epoch_{EPOCHS}.pth' for folder in runs))
        got, expected = map(validations, runs)
        assert got == expected and any(value > 0 for _, _, value in expected), (got, expected)
        return 'weights and AP of the undisturbed run'


def validations(work_dir: Path) -> set[tuple[int, str, float]]:
    """Returns epochs, names and values of what a run was validated with, also if it was done twice."""
    return {(record['step'], name, value) for record in read_records(work_dir) for name, value in record.items()
            if name.startswith('coco/')}


def require_same_weights(got: Path, expected: Path) -> None:
    """Raises AssertionError unless the weights of two checkpoints, and their averages, are equal bit by bit."""
    checkpoints = torch.load(got), torch.load(expected)
    for part in ('state_dict', 'ema_state_dict'):
        ours, theirs = (checkpoint[part] for checkpoint in checkpoints)
        different = [key for key, value in theirs.items() if not torch.equal(ours[key], value)]
        assert not different, f'{len(different)} weights differ in {part}, the first is {different[0]}'


def slurm_cpus(lab: Lab) -> str:
    assert lab.on_slurm('slurm_cpus').wait() == 0
    return lab.equals_undisturbed('slurm_cpus')


def slurm_gpus(lab: Lab) -> str:
    """The GPUs are files that pass for some, so training itself is on the CPU."""
    assert lab.on_slurm('slurm_gpus', GPUS='2').wait() == 0
    return f'two declared GPUs were given: {lab.equals_undisturbed("slurm_gpus")}'


def slurm_test(lab: Lab) -> str:
    checkpoint = lab.folder / f'slurm_cpus/epoch_{EPOCHS}.pth'
    rest = [CONFIG, checkpoint, '--data', lab.folder / 'coco', '--image-size', 64, '--work-dir', lab.folder / 'tests']
    assert lab.start('slurm_test', [TOOLS / 'slurm_test.sh', 'cpu', 'test', *rest, '--out', lab.folder / 'two'],
                     GPUS='0', TASKS='2', CPUS_PER_TASK='1').wait() == 0
    assert lab.start('test', [sys.executable, TOOLS / 'test.py', *rest, '--out', lab.folder / 'one']).wait() == 0
    several, one = (json.loads((lab.folder / f'{name}.bbox.json').read_text()) for name in ('two', 'one'))
    assert several == one and one, (len(several), len(one))
    return f'the {len(one)} boxes of one process'


def slurm_compare(lab: Lab) -> str:
    """Two runs at a time."""
    rest = [CONFIG, '--data', lab.folder / 'coco', '--image-size', 64, '--epochs', 2, '--seeds', 0, 1, '--jobs', 2]
    for name, more in (('slurm_compare', ['--slurm', 'cpu']), ('compare', [])):
        status = lab.start(name, [sys.executable, TOOLS / 'compare.py', *rest, *more,
                                  '--work-dir', lab.folder / name], GPUS='0', CPUS_PER_TASK='1').wait()
        assert status == 0, status
    for seed in ('seed0', 'seed1'):
        require_same_weights(*(lab.folder / name / CONFIG / seed / 'train' / 'epoch_2.pth'
                               for name in ('slurm_compare', 'compare')))
    return 'weights of the comparison without Slurm'


def slurm_cancelled(lab: Lab) -> str:
    job = lab.on_slurm('slurm_cancelled')
    lab.trains('slurm_cancelled')
    run('scancel', '--name=slurm_cancelled', env=lab.environment)
    assert job.wait() == 143, job.returncode
    said = re.search(r'^stopped by SIGTERM: saved [^;]+', lab.log('slurm_cancelled'), re.MULTILINE)
    assert said, lab.log('slurm_cancelled')[-500:]
    assert lab.on_slurm('slurm_cancelled', '--resume').wait() == 0
    return f'{said[0]}; resumed: {lab.equals_undisturbed("slurm_cancelled")}'


def slurm_out_of_time(lab: Lab) -> str:
    """Slurm's warning is sent at once, instead of 120 seconds before the end of the job's time."""
    assert lab.on_slurm('slurm_out_of_time', BATCH='1', SRUN_ARGS=f'--output={lab.folder}/job.log').wait() == 0
    lab.trains('slurm_out_of_time')
    run('scancel', '--batch', '--signal=USR1', '--name=slurm_out_of_time', env=lab.environment)
    job = ('squeue', '--noheader', '--format=%i', '--states=PENDING', '--name=slurm_out_of_time')
    wait_until(lambda: run(*job, env=lab.environment), 60)
    # Slurm waits two minutes before it starts a job again, so that the node is cleaned up.
    run('scontrol', 'update', f'JobId={run(*job, env=lab.environment).strip()}', 'StartTime=now+15',
        env=lab.environment)
    wait_until((lab.folder / f'slurm_out_of_time/epoch_{EPOCHS}.pth').exists, 180)
    wait_until(lambda: not run('squeue', '--noheader', env=lab.environment), 60)
    log = (lab.folder / 'job.log').read_text()
    assert 'stopped by SIGUSR1: saved' in log and 'from epoch' in log
    return f'queued again, and went on by itself: {lab.equals_undisturbed("slurm_out_of_time")}'


def hosts(lab: Lab) -> str:
    assert [process.wait() for process in lab.on_hosts('hosts')] == [0, 0]
    return lab.equals_undisturbed('hosts')


def hosts_slow(lab: Lab) -> str:
    run('tc', '-n', 'h0', 'qdisc', 'add', 'dev', 'v0', 'root', 'tbf', 'rate', '400mbit', 'burst', '256kb',
        'latency', '50ms')
    try:
        assert [process.wait() for process in lab.on_hosts('hosts_slow')] == [0, 0]
    finally:
        run('tc', '-n', 'h0', 'qdisc', 'del', 'dev', 'v0', 'root')
    return f'at 400 Mbit/s: {lab.equals_undisturbed("hosts_slow")}'


def hosts_clocks(lab: Lab) -> str:
    """The second host is three hours ahead, and then three hours behind; as Python sees it."""
    (lab.folder / 'clock').mkdir()
    (lab.folder / 'clock/sitecustomize.py').write_text(OTHER_TIME)
    for hours, stop in (('3', True), ('-3', False)):
        first, = lab.on_hosts('hosts_clocks', '--resume', hosts=[0])
        second, = lab.on_hosts('hosts_clocks', '--resume', hosts=[1], HOURS_AHEAD=hours,
                               PYTHONPATH=f'{lab.folder}/clock:{ROOT}')
        if stop:
            lab.trains('hosts_clocks')
            second.terminate()
        assert {first.wait(), second.wait()} == ({143} if stop else {0})
    return f'the second host 3 h ahead, stopped, then 3 h behind: {lab.equals_undisturbed("hosts_clocks")}'


def hosts_missing(lab: Lab) -> str:
    told = []
    for host in (0, 1):
        start = time.monotonic()
        process, = lab.on_hosts('hosts_missing', hosts=[host], WAIT='10')
        assert process.wait(60) == 1
        line, = lab.errors(f'hosts_missing_{host}')
        told.append(f'`{line[:60]}…` after {time.monotonic() - start:.0f} s')
    return f'WAIT=10: {"; the other alone: ".join(told)}'


def hosts_killed(lab: Lab) -> str:
    processes = lab.on_hosts('hosts_killed', MAX_RESTARTS='2')
    lab.trains('hosts_killed')
    os.kill(descendants(processes[1].pid)[0], signal.SIGKILL)
    assert [process.wait() for process in processes] == [0, 0]
    line, *_ = lab.errors('hosts_killed_0')  # where starting takes longer than the timeout, they start once more
    assert len(lab.errors('hosts_killed_0') + lab.errors('hosts_killed_1')) <= 3
    return f'`{line[:60]}…`; restarted by torchrun, and resumed: {lab.equals_undisturbed("hosts_killed")}'


def hosts_frozen(lab: Lab) -> str:
    """A process stands still, without ending."""
    processes = lab.on_hosts('hosts_frozen')
    lab.trains('hosts_frozen')
    frozen = descendants(processes[1].pid)[0]
    os.kill(frozen, signal.SIGSTOP)
    start = time.monotonic()
    assert processes[0].wait(60) > 0
    seconds = time.monotonic() - start
    os.kill(frozen, signal.SIGCONT)
    assert processes[1].wait(60) > 0
    lines = [lab.errors(f'hosts_frozen_{host}') for host in (0, 1)]
    assert all(len(said) == 2 for said in lines), lines  # the process's, and which process that was
    assert [process.wait() for process in lab.on_hosts('hosts_frozen', '--resume')] == [0, 0]
    return (f'the other ended after {seconds:.0f} s (timeout {TIMEOUT} s); resumed: '
            f'{lab.equals_undisturbed("hosts_frozen")}')


def hosts_cut(lab: Lab) -> str:
    processes = lab.on_hosts('hosts_cut')
    lab.trains('hosts_cut')
    run('ip', '-n', 'h1', 'link', 'set', 'v1', 'down')
    start = time.monotonic()
    try:
        statuses = [process.wait(120) for process in processes]
    finally:
        run('ip', '-n', 'h1', 'link', 'set', 'v1', 'up')
    seconds = time.monotonic() - start
    assert all(statuses), statuses
    line, which = lab.errors('hosts_cut_0')
    assert len(lab.errors('hosts_cut_1')) == 2
    assert [process.wait() for process in lab.on_hosts('hosts_cut', '--resume')] == [0, 0]
    return (f'both ended after {seconds:.0f} s (timeout {TIMEOUT} s): `{line[:60]}…`; resumed: '
            f'{lab.equals_undisturbed("hosts_cut")}')


def same_folder(lab: Lab) -> str:
    """A second training is started in the work dir of another."""
    processes = lab.on_hosts('same_folder', '--epochs', 1000)
    lab.trains('same_folder')
    status = lab.start('second', [sys.executable, TOOLS / 'train.py', CONFIG, '--work-dir', lab.folder / 'same_folder',
                                  *lab.options()]).wait()
    line, = lab.errors('second')
    assert status == 2 and all(process.poll() is None for process in processes), status
    processes[0].terminate()
    assert {process.wait() for process in processes} == {143}
    return f'`{line[:60]}…`; the first goes on'


def disk_full(lab: Lab) -> str:
    return _on_bad_disk(lab, 'disk_full', 'size=80m')


def disk_read_only(lab: Lab) -> str:
    return _on_bad_disk(lab, 'disk_read_only', 'ro')


def _on_bad_disk(lab: Lab, name: str, option: str) -> str:
    (lab.folder / name).mkdir()
    run('mount', '-t', 'tmpfs', '-o', option, 'none', lab.folder / name)
    try:
        processes = lab.on_hosts(name)
        statuses = [process.wait(180) for process in processes]
        left = sorted(path.name for path in (lab.folder / name).glob('*.pth'))
        for file in left:
            torch.load(lab.folder / name / file)
    finally:
        run('umount', lab.folder / name)
    assert all(statuses), statuses
    line, *_ = lab.errors(f'{name}_0')
    return f'`{line.replace(f"{lab.folder}/", "")}`; left, and whole: {", ".join(left) or "nothing"}'


CASES: tuple[Callable[[Lab], str], ...] = (
    slurm_cpus, slurm_gpus, slurm_test, slurm_compare, slurm_cancelled, slurm_out_of_time, hosts, hosts_slow,
    hosts_clocks, hosts_missing, hosts_killed, hosts_frozen, hosts_cut, same_folder, disk_full, disk_read_only)


def main() -> None:
    chosen = [case for case in CASES
              if not sys.argv[1:] or any(case.__name__.startswith(name) for name in sys.argv[1:])]
    failed = False
    with TemporaryDirectory() as folder, slurm(Path(folder, 'slurm')) as variables, two_hosts():
        lab = Lab(Path(folder), {**os.environ, **variables, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1',
                                 'PYTHONPATH': str(ROOT),
                                 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'})
        # A detector that has hardly learnt hits boxes as large as their pictures: AP is not 0.
        val = [replace(picture, objects=[(label, 0, 0, *picture.pixels.shape[1::-1]) for label, *_ in picture.objects])
               for picture in compose_pictures(4, seed=1, prefix='v')]
        splits = {'train': compose_pictures(48), 'val': val}
        write_coco(lab.folder / 'coco', splits)
        write_yolo(lab.folder / 'yolo', splits)
        assert lab.start('undisturbed', [TOOLS / 'dist_train.sh', CONFIG, 2, '--work-dir', lab.folder / 'undisturbed',
                                         *lab.options()]).wait() == 0
        print('| case | what happened | seconds |\n|---|---|---|', flush=True)
        for case in chosen:
            start = time.monotonic()
            try:
                result = case(lab)
            except Exception as error:  # the others run all the same
                failed, result = True, f'**failed**: {type(error).__name__}: {error}'
                for log in lab.folder.glob(f'{case.__name__}*.log'):
                    print(log.read_text()[-2000:], file=sys.stderr)
            finally:
                lab.end()
            print(f'| {case.__name__} | {result} | {time.monotonic() - start:.0f} |', flush=True)
    sys.exit(failed)


if __name__ == '__main__':
    main()
