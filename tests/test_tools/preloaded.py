"""Stands in for ``subprocess`` where our tools are started: in copies of a process that has imported MMDetection."""
from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.reduction import DupFd
from subprocess import DEVNULL, STDOUT, CompletedProcess
from typing import IO

import mmengine.config.config

__all__ = ['DEVNULL', 'STDOUT', 'run']

_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(['mmmamba.models', 'mmmamba.datasets', 'mmmamba.engine', 'mmdet.apis'])


def run(command: Sequence[str], *, stdout: IO[bytes], env: Mapping[str, str], **_: object) -> CompletedProcess:
    """Runs ``[sys.executable, script, *arguments]`` with standard error on ``stdout`` too."""
    child = _CONTEXT.Process(target=_main, args=(list(command[1:]), DupFd(stdout.fileno()), os.getcwd(), dict(env)))
    child.start()
    child.join()
    return CompletedProcess(command, child.exitcode)


def _main(arguments: list[str], output: DupFd, folder: str, environment: dict[str, str]) -> None:
    descriptor = output.detach()
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    mmengine.config.config.FormatCode = lambda text, **_: (text, False)  # as in conftest.py
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name='__main__')
