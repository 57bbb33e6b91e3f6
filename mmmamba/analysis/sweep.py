"""Many measurements, each in a process of its own, and the CSV that holds their results."""
from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmmamba.analysis.detector import model_config
from mmmamba.analysis.environment import ENVIRONMENT, detector_environment
from mmmamba.analysis.measurement import Task, encoded
from mmmamba.errors import InputError
from mmmamba.files import write_atomically

KEY = ('config', 'pass', 'dtype', 'side')
RESULTS = ('failure', 'memory_mib', 'total_mib', 'parameters', 'linear_gflops', 'scan_gflops', 'median_ms', 'p20_ms',
           'p80_ms', 'images_per_s')
COLUMNS = (*KEY, *RESULTS, 'runs', 'model', *ENVIRONMENT)

Row = Mapping[str, Any]
"""A line of the CSV by its columns; a string, or nothing, in each that was read from a file."""


def sweep(tasks: Sequence[Task], path: Path, timeout: float, say: Callable[[Task, Row, bool], None]) -> list[Row]:
    """Measures what the file does not hold yet, and writes it after every measurement.

    Rows that have a failure are measured again. Where a side does not fit, the larger ones of its config, dtype and
    pass, which need more, are recorded as not tried.

    Args:
        tasks: One or more, of one device and number of threads; smaller sides of a config before larger ones.
        path: The CSV.
        timeout: Seconds that a measurement may take.
        say: Called with each task, its row, and whether it was measured just now.

    Returns:
        The rows of the file, in the order of their first measurement.

    Raises:
        InputError: The file's rows come from another device, other threads or versions, or from another model in a
            config of that name; or it is no such file; or a config cannot be read.
    """
    digests = {Path(config).stem: model_digest(config) for config in dict.fromkeys(task.config for task in tasks)}
    rows = {tuple(row[column] for column in KEY): row for row in read_rows(path)} if path.exists() else {}
    where = detector_environment(tasks[0].device, tasks[0].threads)
    _require_same_environment(rows.values(), where, path)
    _require_same_models(rows.values(), digests, path)
    too_large: dict[tuple[str, ...], int] = {}
    for task in tasks:
        key = (Path(task.config).stem, task.pass_, task.dtype, str(task.side))
        old = rows.get(key)
        measured = old is None or bool(old['failure'])
        if measured:
            if key[:3] in too_large:
                result = dict(failure=f'not tried: {too_large[key[:3]]} did not fit')
            else:
                result = measure_apart(task, timeout)
                if not result.pop('fits'):
                    too_large[key[:3]] = task.side
            rows[key] = {**dict.fromkeys(COLUMNS, ''), **dict(zip(KEY, key)), **result, 'runs': task.runs,
                         'model': digests[key[0]], **where}
            write_rows(path, rows.values())
        say(task, rows[key], measured)
    return list(rows.values())


def measure_apart(task: Task, timeout: float) -> dict[str, Any]:
    """Runs a task in a process of its own.

    Returns:
        What :func:`mmmamba.analysis.measurement.measure` returns, or a ``failure`` in one line; and ``fits``: whether
        time and memory sufficed.
    """
    command = [sys.executable, '-m', 'mmmamba.analysis.measurement', encoded(task)]
    threads = dict(OMP_NUM_THREADS=str(task.threads))
    try:
        done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return dict(failure=f'takes more than {timeout:g} s', fits=False)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        # What the kernel sends when the machine has no memory left, and what libraries do that cannot allocate any.
        return dict(failure=f'ended by {name}', fits=name not in ('SIGKILL', 'SIGABRT', 'SIGBUS'))
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return dict(failure=' '.join(done.stderr.split())[-200:] or f'status {done.returncode}', fits=True)
    try:
        result = dict(json.loads(lines[-1]))
    except (TypeError, ValueError):  # what something else printed, a library at the end of the process, say
        return dict(failure=f'no result, but: {lines[-1][-200:]}', fits=True)
    if result.get('failure') == 'out of memory' and task.memory_limit is not None:
        result['failure'] += f' (limit {task.memory_limit / 2**30:.4g} GiB)'
    return {'fits': True, **result}


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV.

    Raises:
        InputError: The file has other columns.
    """
    with path.open(newline='', encoding='utf-8') as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise InputError(f'{path} is no CSV of a sweep: its columns differ')
        return list(reader)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def model_digest(config: str) -> str:
    """What tells the model of a config file, with all that it inherits, from others."""
    text = json.dumps(model_config(config), sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _require_same_environment(rows: Iterable[Row], where: Mapping[str, str], path: Path) -> None:
    for row in rows:
        for column, value in where.items():
            if row[column] != value:
                raise InputError(f'{path} was measured with {column} {row[column]}, not {value}: name another --out')


def _require_same_models(rows: Iterable[Row], digests: Mapping[str, str], path: Path) -> None:
    for row in rows:
        config = row['config']
        if not row['failure'] and row['model'] != digests.get(config, row['model']):
            raise InputError(f'{path}: {config} was measured of another model: name another --out')
