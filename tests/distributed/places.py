"""A Slurm of one node on this machine, and two hosts that are network namespaces; both go when they are left."""
from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
KillWait=20
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def run(*command: object, **settings) -> str:
    """Runs a command and returns what it printed; raises if it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **settings)
    if done.returncode:
        raise RuntimeError(f'{" ".join(map(str, command))}: {done.stdout}{done.stderr}')
    return done.stdout


def descendants(process: int) -> list[int]:
    """Returns the processes that a process started, theirs included."""
    found = []
    for children in Path(f'/proc/{process}/task').glob('*/children'):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, children.read_text().split()):
                found += [child, *descendants(child)]
    return found


@contextmanager
def slurm(folder: Path) -> Iterator[Mapping[str, str]]:
    """Starts a cluster with a partition ``cpu`` of one node with two cores and two files that pass for GPUs.

    Args:
        folder: For its files.

    Yields:
        Variables for those who use it.
    """
    host = socket.gethostname().partition('.')[0]
    for name in ('state', 'spool'):
        (folder / name).mkdir(parents=True)
    for name in ('gpu0', 'gpu1'):
        (folder / name).touch()
    (folder / 'slurm.conf').write_text(_CONFIG.format(host=host, folder=folder))
    (folder / 'gres.conf').write_text(f'NodeName={host} Name=gpu File={folder}/gpu[0-1]\n')
    environment = {'SLURM_CONF': str(folder / 'slurm.conf')}
    with ExitStack() as stack:
        if subprocess.run(['pgrep', 'munged'], capture_output=True).returncode:
            Path('/run/munge').mkdir(exist_ok=True)
            run('chown', 'munge', '/run/munge')
            run('su', 'munge', '-s', '/bin/sh', '-c', '/usr/sbin/munged')
        for daemon in (['slurmctld', '-D'], ['slurmd', '-D', '-N', host]):
            process = subprocess.Popen(daemon, env={**os.environ, **environment}, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        wait_until(lambda: 'idle' in run('sinfo', env={**os.environ, **environment}), 30)
        yield environment


@contextmanager
def two_hosts() -> Iterator[None]:
    """Makes the namespaces h0 (10.9.0.1, interface v0) and h1 (10.9.0.2, v1), connected to each other alone."""
    with ExitStack() as stack:
        for host in ('h0', 'h1'):
            run('ip', 'netns', 'add', host)
            stack.callback(run, 'ip', 'netns', 'del', host)
        run('ip', 'link', 'add', 'v0', 'netns', 'h0', 'type', 'veth', 'peer', 'name', 'v1', 'netns', 'h1')
        for index in (0, 1):
            run('ip', '-n', f'h{index}', 'addr', 'add', f'10.9.0.{index + 1}/24', 'dev', f'v{index}')
            for interface in ('lo', f'v{index}'):
                run('ip', '-n', f'h{index}', 'link', 'set', interface, 'up')
        yield


def wait_until(holds, seconds: float) -> None:
    """Waits until a function returns something true; raises TimeoutError after so many seconds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f'after {seconds} s')
        time.sleep(0.2)
