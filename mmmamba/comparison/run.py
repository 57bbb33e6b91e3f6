"""One run of a comparison: a detector and a seed, in a folder of their own."""
from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from mmengine.config import Config

from mmmamba.errors import InputError
from mmmamba.files import write_atomically

CONFIG, LOG, RESULTS, FAILURE = 'config.py', 'log.txt', 'results', 'failure.txt'
SIGNALS = {-number: number.name for number in signal.Signals}  # as statuses
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)  # 130 and 143: the same, as our tools and launchers have them
WORKERS_NOTICE = 8.0  # seconds; PyTorch's data workers look every 5 whether their parent is alive


class OtherConfigError(InputError):
    """A folder holds a run of another config than is asked for."""


@dataclass(frozen=True)
class Launch:
    """How the tools are started.

    Args:
        tools: The folder of train.py and test.py.
        prefix: What stands before the command: nothing, or a cluster's launcher.
        environment: Variables beside those of this process.
    """
    tools: Path
    prefix: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A detector that is trained and tested with one seed.

    Args:
        name: The detector's, in tables.
        seed: Of initialisation, order of the images and augmentation.
        folder: Gets the run's ``config.py``, ``train/``, ``results.bbox.json``, ``results.metrics.json`` and
            ``log.txt``; ``failure.txt`` where it failed.
    """
    name: str
    seed: int
    folder: Path

    @property
    def metrics(self) -> Path:
        return self.folder / f'{RESULTS}.metrics.json'

    @property
    def finished(self) -> bool:
        return self.metrics.is_file()

    @property
    def failure(self) -> str | None:
        """Why it failed, in one line; None where it did not."""
        path = self.folder / FAILURE
        return path.read_text(encoding='utf-8').strip() if path.is_file() and not self.finished else None

    def prepare(self, config: str) -> None:
        """Writes the run's config, where it is not there yet.

        Args:
            config: The text.

        Raises:
            OtherConfigError: The folder holds a run of another config, which resuming would mix with this one.
        """
        path = self.folder / CONFIG
        if not path.is_file():
            write_atomically(path, config.encode())
            return
        old, new = Config.fromfile(path).to_dict(), Config.fromstring(config, '.py').to_dict()
        different = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if different:
            raise OtherConfigError(f'{self.folder} holds a run of another config, which differs in {different[0]}: '
                                   'name another --work-dir, or remove it')

    def fail(self, reason: str) -> None:
        """Notes down why the run failed."""
        write_atomically(self.folder / FAILURE, f'{reason}\n'.encode())

    def execute(self, launch: Launch) -> None:
        """Trains and tests, each in a process of its own, and continues where an earlier call was stopped."""
        if self.train(launch):
            self._call(launch, 'test.py', [self.folder / CONFIG, self._checkpoint(), '--work-dir',
                                           self.folder / 'test', '--out', self.folder / RESULTS])

    def train(self, launch: Launch) -> bool:
        """Trains, from the last checkpoint on where there is one. Returns whether it came to its end."""
        checkpoint = self._checkpoint()
        resume = ['--resume', checkpoint] if checkpoint else []
        return self._call(launch, 'train.py', [self.folder / CONFIG, '--work-dir', self.folder / 'train', *resume])

    def _checkpoint(self) -> Path | None:
        """The last one in this folder, which may have been moved since it was written."""
        record = self.folder / 'train' / 'last_checkpoint'
        return record.with_name(Path(record.read_text(encoding='utf-8').strip()).name) if record.is_file() else None

    def _call(self, launch: Launch, tool: str, options: Sequence[object]) -> bool:
        (self.folder / FAILURE).unlink(missing_ok=True)
        command = [*launch.prefix, sys.executable, str(launch.tools / tool), *map(str, options)]
        with (self.folder / LOG).open('ab') as log:
            if not _lock(log):  # the tool keeps the lock, even where it outlives this process
                self.fail('another process is at work in the folder')
                return False
            start = log.tell()
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                    env={**os.environ, **launch.environment}, check=False).returncode
        if status and status not in STOPPED:
            how = SIGNALS.get(status, f'status {status}')
            self.fail(f'{tool} ended with {how}: {last_line(self.folder / LOG, start)}')
        return not status


def _lock(file: IO[bytes]) -> bool:
    """Locks a file, and waits for the data workers of a tool that was killed, which hold it until they notice."""
    end = time.monotonic() + WORKERS_NOTICE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.2)


def last_line(log: Path, start: int) -> str:
    """The last line of a log that names an error, as tools and tracebacks do, or else the last that says anything.

    Args:
        log: The file.
        start: Bytes at its beginning that are of earlier calls.
    """
    lines = [line.strip() for line in log.read_bytes()[start:].decode(errors='replace').splitlines()]
    errors = [line for line in lines if re.match(r'error: |[\w.]*(Error|Exception)\b', line)]
    return next((line for line in reversed(errors or lines) if line), 'no output')
