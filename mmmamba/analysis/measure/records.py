"""The one record writer: rows with where they were measured, as CSV files."""
from __future__ import annotations

import csv
import io
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, TypeVar

import torch

from mmmamba.errors import InputError
from mmmamba.files import write_atomically
from mmmamba.ops.cpu import native
from mmmamba.version import __version__

Row = Mapping[str, Any]
"""A record by its columns; a string, or nothing, in each that was read from a file."""
Result = TypeVar('Result')

ENVIRONMENT = ('device', 'threads', 'mmmamba', 'torch', 'triton')
_CPUINFO = Path('/proc/cpuinfo')


def environment(device: str, threads: int) -> Mapping[str, str]:
    """Tells where a measurement is made, so that those of different machines are not mixed.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Of PyTorch, on the CPU.

    Returns:
        By the names in ``ENVIRONMENT``: the GPU, or the CPU and its instruction set; threads; versions.
    """
    try:
        triton = version('triton')
    except PackageNotFoundError:
        triton = ''
    if torch.device(device).type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        name = ' '.join(['cpu', cpu_name(), *native.available_isas()[-1:]])
    return MappingProxyType(dict(zip(ENVIRONMENT, (name, str(threads), __version__, torch.__version__, triton))))


def cpu_name() -> str:
    """Returns what its maker calls the CPU; where the system does not tell, the instruction set's name."""
    return _cpuinfo('model name') or platform.machine()


def cpu_flags(names: Sequence[str]) -> str:
    """Returns those of the instruction sets that the CPU has, as Linux names them; elsewhere none."""
    present = _cpuinfo('flags').split()
    return ' '.join(name for name in names if name in present)


def _cpuinfo(field: str) -> str:
    """Returns a field of the first CPU that Linux lists, empty without."""
    text = _CPUINFO.read_text(encoding='utf-8') if _CPUINFO.exists() else ''
    found = re.search(rf'^{field}[ \t]*:(.*)$', text, re.MULTILINE)
    return ' '.join(found[1].split()) if found else ''


def with_environment(rows: Iterable[Row], device: torch.device) -> list[Row]:
    """Returns the rows, each with where it was measured: on that device, with PyTorch's present threads."""
    where = environment(str(device), torch.get_num_threads())
    return [{**row, **where} for row in rows]


def csv_text(rows: Iterable[Row], columns: Sequence[str] | None = None) -> str:
    """Returns the rows as CSV; a column that a row lacks is empty.

    Args:
        rows: The records.
        columns: The header; None for all that rows have, in the order in which they first come.
    """
    rows = list(rows)
    if columns is None:
        columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, rows: Iterable[Row], columns: Sequence[str] | None = None) -> None:
    """Writes :func:`csv_text` so that a reader sees the old file or the new one, nothing between."""
    write_atomically(path, csv_text(rows, columns).encode())


def read_csv(path: Path, columns: Sequence[str]) -> list[Row]:
    """Reads the rows of a CSV file.

    Raises:
        InputError: The file has other columns.
    """
    with path.open(newline='', encoding='utf-8') as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != tuple(columns):
            raise InputError(f'{path} is no CSV of a sweep: its columns differ')
        return list(reader)


def attempted(tasks: Mapping[str, Callable[[], Result]]) -> tuple[dict[str, Result], dict[str, str]]:
    """Returns the results of tasks by name, and one line of the exception of each that raised, whatever it is."""
    results, failures = {}, {}
    for name, task in tasks.items():
        try:
            results[name] = task()
        except Exception as error:  # the others are measured all the same
            failures[name] = failure_line(error)
    return results, failures


def failure_line(error: Exception) -> str:
    """Returns an exception in one line."""
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
