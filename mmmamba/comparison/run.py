"""One run of a comparison: a detector and a seed, in a folder of their own."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmmamba.errors import InputError
from mmmamba.files import write_atomically

CONFIG, LOG, RESULTS, FAILURE = 'config.py', 'log.txt', 'results', 'failure.txt'


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
        return path.read_text(encoding='utf-8').strip() if path.is_file() else None

    def prepare(self, config: str) -> None:
        """Writes the run's config.

        Raises:
            InputError: The folder holds a run of another config, which resuming would mix with this one.
        """
        path = self.folder / CONFIG
        if path.is_file() and path.read_text(encoding='utf-8') != config:
            raise InputError(f'{self.folder} holds a run under other conditions: name another --work-dir, or remove it')
        write_atomically(path, config.encode())

    def fail(self, reason: str) -> None:
        write_atomically(self.folder / FAILURE, f'{reason}\n'.encode())

    def execute(self, tools: Path, prefix: Sequence[str], environment: Mapping[str, str]) -> None:
        """Trains and tests, each in a process of its own, and continues where an earlier call was stopped.

        Args:
            tools: The folder of train.py and test.py.
            prefix: What stands before the command: nothing, or a cluster's launcher.
            environment: Variables beside those of this process.
        """
        (self.folder / FAILURE).unlink(missing_ok=True)
        config, train = self.folder / CONFIG, self.folder / 'train'
        resume = ['--resume'] if (train / 'last_checkpoint').is_file() else []
        trained = self._call(tools / 'train.py', [config, '--work-dir', train, *resume], prefix, environment)
        if trained:
            checkpoint = (train / 'last_checkpoint').read_text(encoding='utf-8').strip()
            options = [config, checkpoint, '--work-dir', self.folder / 'test', '--out', self.folder / RESULTS]
            self._call(tools / 'test.py', options, prefix, environment)

    def _call(self, tool: Path, options: Sequence[object], prefix: Sequence[str],
              environment: Mapping[str, str]) -> bool:
        command = [*prefix, sys.executable, str(tool), *map(str, options)]
        with (self.folder / LOG).open('ab') as log:
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                    env={**os.environ, **environment}, check=False).returncode
        if status:
            self.fail(f'{tool.name} ended with status {status}: {last_line(self.folder / LOG)}')
        return not status

    def remove_results(self) -> None:
        """So that the run starts anew."""
        shutil.rmtree(self.folder, ignore_errors=True)


def last_line(log: Path) -> str:
    """The last line of a log that says something: an error's, as tools and tracebacks end with it."""
    lines = [line.strip() for line in log.read_text(encoding='utf-8', errors='replace').splitlines()]
    return next((line for line in reversed(lines) if line), 'no output')


def read_metrics(run: Run) -> dict[str, float]:
    """The metrics of a finished run."""
    return json.loads(run.metrics.read_text(encoding='utf-8'))
