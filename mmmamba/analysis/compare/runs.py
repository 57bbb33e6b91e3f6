"""The runs of a comparison: a detector and a seed each, in a folder of its own; several at a time; what they leave."""
from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import IO

import torch
from mmengine.config import Config

from mmmamba.analysis.compare.results import AP, RunResult, Validation
from mmmamba.errors import STOP_SIGNALS, InputError
from mmmamba.files import write_atomically

CONFIG, LOG, RESULTS, FAILURE = 'config.py', 'log.txt', 'results', 'failure.txt'
SIGNALS = {-number: number.name for number in signal.Signals}  # as statuses
STOPPED = tuple(status for number in STOP_SIGNALS for status in (128 + number, -number))
WORKERS_NOTICE = 8.0  # seconds; PyTorch's data workers look every 5 whether their parent is alive
SRUN = ('--job-name=compare', '--ntasks=1', '--kill-on-bad-exit=1')


class OtherConfigError(InputError):
    """A folder holds a run of another config than is asked for."""


@dataclass(frozen=True)
class Launch:
    """How the tools are started.

    Args:
        tools: The folder of train.py and test.py.
        prefix: What comes before the command: nothing, or a cluster's launcher.
        environment: Variables besides those of this process.
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
        """Returns why it failed, in one line; None if it did not."""
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
        """Trains, from the last checkpoint on, if there is one. Returns whether it came to its end."""
        checkpoint = self._checkpoint()
        resume = ['--resume', checkpoint] if checkpoint else []
        return self._call(launch, 'train.py', [self.folder / CONFIG, '--work-dir', self.folder / 'train', *resume])

    def _checkpoint(self) -> Path | None:
        """Finds the last one in this folder, which may have been moved since it was written."""
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
    """Returns the last line of a log that names an error, as tools and tracebacks do, else the last with any text.

    Args:
        log: The file.
        start: Bytes at its beginning that are of earlier calls.
    """
    lines = [line.strip() for line in log.read_bytes()[start:].decode(errors='replace').splitlines()]
    errors = [line for line in lines if re.match(r'error: |[\w.]*(Error|Exception)\b', line)]
    return next((line for line in reversed(errors or lines) if line), 'no output')


def launches(tools: Path, jobs: int, partition: str | None) -> list[Launch]:
    """Returns as many places to run in as ``jobs`` says.

    Each is a GPU or, without GPUs, a share of the CPU's threads (``OMP_NUM_THREADS``, where that is not set already).

    Args:
        tools: The folder of train.py and test.py.
        jobs: Places; with fewer GPUs than that, some share one.
        partition: Of a Slurm cluster, which assigns the GPUs itself; None without one. ``GPUS=0`` (a partition without
            GPUs), ``CPUS_PER_TASK`` and ``SRUN_ARGS`` are taken as ``tools/slurm_train.sh`` takes them.
    """
    if partition:
        cpus, more = os.environ.get('CPUS_PER_TASK', '5'), os.environ.get('SRUN_ARGS', '').split()
        gpu = () if os.environ.get('GPUS') == '0' else ('--gres=gpu:1', )
        return [Launch(tools, ('srun', f'--partition={partition}', f'--cpus-per-task={cpus}', *SRUN, *gpu, *more),
                       {} if gpu else {'OMP_NUM_THREADS': cpus})] * jobs
    gpus = torch.cuda.device_count()
    if gpus:
        visible = os.environ.get('CUDA_VISIBLE_DEVICES')
        names = visible.split(',') if visible else [str(index) for index in range(gpus)]
        return [Launch(tools, environment={'CUDA_VISIBLE_DEVICES': names[job % gpus]}) for job in range(jobs)]
    threads = os.environ.get('OMP_NUM_THREADS') or str(max(torch.get_num_threads() // jobs, 1))
    return [Launch(tools, environment={'OMP_NUM_THREADS': threads})] * jobs


def execute_all(runs: Sequence[Run], places: Sequence[Launch], ended: Callable[[Run, float], None]) -> None:
    """Executes runs in their order, as many at a time as there are places; one that fails does not stop the others.

    Args:
        runs: Those to execute.
        places: See :func:`launches`.
        ended: Called with each run that ended, and the minutes that it took.
    """
    free: SimpleQueue[Launch] = SimpleQueue()
    for place in places:
        free.put(place)

    def execute(run: Run) -> None:
        place, start = free.get(), time.monotonic()
        try:
            run.execute(place)
        finally:
            free.put(place)
        ended(run, (time.monotonic() - start) / 60)

    with ThreadPoolExecutor(len(places)) as pool:
        try:
            for future in [pool.submit(execute, run) for run in runs]:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what runs ends, or was interrupted as well
            raise


def read_run(run: Run, parameters: int | None) -> RunResult:
    """Reads the result of a run; one without a result says why it has none.

    Args:
        run: Executed, or not.
        parameters: Number of the model's, if it is wanted.
    """
    failure, metrics = None, {}
    if run.finished:
        # Without a single detection CocoMetric has no metrics; null is one that is not defined.
        found = json.loads(run.metrics.read_text(encoding='utf-8'))
        metrics = {AP: 0.0, f'{AP}_50': 0.0, f'{AP}_75': 0.0,
                   **{name: value for name, value in found.items() if value is not None}}
    else:
        failure = f'failed: {run.failure}' if run.failure else 'not run to its end yet'
    return RunResult(run.name, run.seed, failure, parameters, metrics, read_history(run.folder / 'train'),
                     run.folder / f'{RESULTS}.bbox.json' if failure is None else None)


def read_history(train: Path) -> tuple[Validation, ...]:
    """Reads the validations of a training, whose log has as many parts as it was resumed times; the later part counts.

    Args:
        train: The work dir of a training with ``TrainingClockHook`` and CocoMetric.
    """
    by_epoch = {}
    for record in read_records(train):
        if 'train_minutes' in record:
            by_epoch[record['step']] = Validation(
                record['step'], record['train_minutes'], record['train_cpu_minutes'], record.get(AP, 0.0))
    return tuple(by_epoch[epoch] for epoch in sorted(by_epoch))


def read_records(train: Path) -> Iterator[dict]:
    """Yields what a training logged, in the order of its parts.

    Args:
        train: Its work dir.
    """
    for log in sorted(train.glob('*/vis_data/scalars.json')):
        yield from read_log(log)


def read_log(log: Path) -> Iterator[dict]:
    """Yields what one run logged.

    Args:
        log: Its scalars.json: an object a line.
    """
    for line in log.read_text(encoding='utf-8').splitlines():
        with suppress(ValueError):  # at the line that was being written when the training was killed
            record = json.loads(line)
            if isinstance(record, dict):
                yield record
