"""dist_run.py, whose processes are copies of this one, which has imported everything; and what each of them does."""
from __future__ import annotations

import atexit
import ctypes
import faulthandler
import logging
import os
import runpy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import RawArray
from pathlib import Path
from subprocess import TimeoutExpired

import mmengine.config.config
from mmengine.runner import Runner
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

_PR_SET_CHILD_SUBREAPER = 36  # <sys/prctl.h>
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
PHASES = ('starting', 'training', 'validation', 'saving', 'ending')
_BEGINS = {'before_train_epoch': 1, 'before_train_iter': 1, 'before_val_epoch': 2, 'after_train': 4}


class Ranks:
    """What the processes tell the one that watches them, in memory that they share.

    Args:
        number: Of processes.
    """

    def __init__(self, number: int) -> None:
        self.pids, self.phases, self.hooks, self.statuses = (RawArray('i', number) for _ in range(4))

    def forget(self) -> None:
        for values in (self.pids, self.phases, self.hooks):
            values[:] = [0] * len(values)
        self.statuses[:] = [-1] * len(self.statuses)  # of one that does not come to its own end

    def watch(self, rank: int) -> None:
        """Has this process tell where it is."""
        call_hook, save = Runner.call_hook, Runner.save_checkpoint

        def called(runner: Runner, fn_name: str, **arguments) -> None:
            self.hooks[rank] += 1
            self.phases[rank] = _BEGINS.get(fn_name, self.phases[rank])
            call_hook(runner, fn_name, **arguments)

        def saving(*arguments, **named) -> None:
            before, self.phases[rank] = self.phases[rank], 3
            save(*arguments, **named)
            self.phases[rank] = before

        Runner.call_hook, Runner.save_checkpoint = called, saving
        self.pids[rank] = os.getpid()


def launch(command: Sequence[object], log: Path, ranks: Ranks) -> int:
    """Starts a command, and returns its process.

    Args:
        command: ``tools/dist_run.py``, options of torchrun, a script and its arguments.
        log: What the command itself prints; what process N prints is in ``LOG.N``.
        ranks: Where the processes tell what they do.
    """
    ranks.forget()

    def run() -> None:
        subprocess_handler.Popen = lambda args, env, **_: _Process(args, env, log, ranks)
        sys.argv = [str(word) for word in command]
        runpy.run_path(sys.argv[0], run_name='__main__')

    return _fork(run, log)


class _Process:
    """Has what torchrun uses of ``subprocess.Popen``."""

    def __init__(self, args: Sequence[str], env: dict[str, str], log: Path, ranks: Ranks) -> None:
        self.args, self.returncode = args, None

        def run() -> None:
            os.setsid()
            _close_sockets()
            rank = int(env['RANK'])
            os.environ.clear()
            os.environ.update(env)
            logging.disable(logging.NOTSET)
            mmengine.config.config.FormatCode = lambda text, **_: (text, False)  # as in conftest.py
            ranks.watch(rank)
            sys.argv = list(args[args.index('-u') + 1:])
            try:
                runpy.run_path(sys.argv[0], run_name='__main__')
                ranks.statuses[rank] = 0
            except SystemExit as end:
                ranks.statuses[rank] = end.code or 0
                raise

        self.pid = _fork(run, Path(f'{log}.{env["RANK"]}'))

    def poll(self) -> int | None:
        if self.returncode is None:
            process, status = os.waitpid(self.pid, os.WNOHANG)
            if process:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return self.returncode


def _fork(run: Callable[[], None], log: Path) -> int:
    """Runs a function in a copy of this process that ends as a program does, and returns the copy's number."""
    sys.stdout.flush()
    # What Python calls at a fork, and a program that starts another does not, cannot be interrupted.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    child = os.fork()
    if child == 0:
        for number in _HANDLED:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    if child:
        return child
    status = 1
    try:
        with log.open('a') as file:
            for standard in (1, 2):
                os.dup2(file.fileno(), standard)
        faulthandler.register(signal.SIGUSR2, all_threads=True)  # for those that hang
        run()
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(status)


def _close_sockets() -> None:
    for descriptor in os.listdir('/proc/self/fd'):
        with suppress(FileNotFoundError):  # that of the folder
            if os.readlink(f'/proc/self/fd/{descriptor}').startswith('socket:'):
                os.close(int(descriptor))


def adopt_orphans() -> None:
    """Makes this process the parent of those whose own has ended."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
