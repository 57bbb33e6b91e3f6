"""tools/dist_run.py: one line and a status for whatever ends the processes of a run."""
from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed.elastic.utils.distributed import get_free_port

from mmmamba.package_files import TOOLS


@pytest.fixture
def start(tmp_path: Path):
    """A function that starts a program in two processes, and returns the launcher's."""

    def start(program: str, *options: str) -> subprocess.Popen:
        first = 'import os, signal, sys, time\nrank = int(os.environ["RANK"])\n'
        (tmp_path / 'program.py').write_text(f'{first}{program}\n')
        return subprocess.Popen(
            [sys.executable, TOOLS / 'dist_run.py', '--nproc-per-node', '2', '--master-addr', '127.0.0.1',
             '--master-port', str(get_free_port()), *options, tmp_path / 'program.py'],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def errors(launcher: subprocess.Popen) -> str:
    """Returns what went wrong: what was printed, but for PyTorch's warnings of the network."""
    lines = launcher.communicate(timeout=60)[1].splitlines(keepends=True)
    return ''.join(line for line in lines if not line.startswith('[W'))


@pytest.mark.parametrize('program, status, line', [
    ('sys.exit(2) if rank else time.sleep(60)', 2, 'error: process 1 of this run ended with status 2; it said why\n'),
    ('sys.exit(143)', 143, ''),
    ('time.sleep(60) if rank else os.kill(os.getpid(), signal.SIGKILL)', 137,
     'error: process 0 of this run was ended by SIGKILL: was the memory full?\n'),
])
def test_a_process_that_ends_is_named(start, program, status, line):
    launcher = start(program)
    assert errors(launcher) == line
    assert launcher.returncode == status


def test_whoever_ends_the_launcher_ends_the_processes(start):
    launcher = start('os.write(1, b"here\\n")\ntime.sleep(60)')
    assert [launcher.stdout.readline() for _ in range(2)] == ['here\n', 'here\n']
    launcher.send_signal(signal.SIGTERM)
    assert errors(launcher) == ''
    assert launcher.returncode == 143


def test_a_machine_that_does_not_come_is_one_line(start):
    launcher = start('', '--nnodes', '2', '--node-rank', '0', '--rdzv-conf', 'timeout=1')
    error = errors(launcher)
    assert error.startswith('error: not all processes of this run have come: ') and error.count('\n') == 1
    assert launcher.returncode == 1
