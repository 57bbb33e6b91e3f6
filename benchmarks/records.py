"""Rows of results: where they were measured, a CSV file, a table on the screen."""
from __future__ import annotations

import csv
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, TypeVar

import torch

from benchmarks.timing import MIB, Timing
from mmmamba.environment import environment

Row = dict[str, Any]
Result = TypeVar('Result')


def device_named(name: str) -> torch.device:
    """A device for argparse: ``cpu`` or ``cuda``, where there is one."""
    if name not in ('cpu', 'cuda'):
        raise ArgumentTypeError(f'must be cpu or cuda, not {name!r}')
    if name == 'cuda' and not torch.cuda.is_available():
        raise ArgumentTypeError('this PyTorch sees no CUDA device')
    return torch.device(name)


def modes(device: torch.device) -> tuple[str, ...]:
    """How to time: as a caller sees it and, on CUDA, without the time that launches take."""
    return ('eager', 'graph') if device.type == 'cuda' else ('eager',)


def failure(error: Exception) -> str:
    """One line of an exception."""
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:300]


def attempted(tasks: Mapping[str, Callable[[], Result]]) -> tuple[dict[str, Result], dict[str, str]]:
    """Results of the tasks by name, and one line of the exception of each that raised, whatever compiler it is of."""
    results, failures = {}, {}
    for name, task in tasks.items():
        try:
            results[name] = task()
        except Exception as error:  # the others are measured all the same
            failures[name] = failure(error)
    return results, failures


def time_fields(timing: Timing) -> Row:
    return {'median_ms': round(timing.median, 4), 'p20_ms': round(timing.p20, 4), 'p80_ms': round(timing.p80, 4)}


def mib(size: int) -> float:
    return round(size / MIB, 3)


def write_csv(path: Path, rows: Sequence[Row], device: torch.device) -> None:
    """Writes all rows, each with the environment; a column that a row lacks is empty."""
    where = environment(str(device), torch.get_num_threads())
    rows = [{**row, **where} for row in rows]
    columns = dict.fromkeys(column for row in rows for column in row)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, fieldnames=list(columns))
        writer.writeheader()
        writer.writerows(rows)


def table(rows: Sequence[Row]) -> str:
    """The rows in aligned columns."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, *([_cell(row.get(column, '')) for column in columns] for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines)]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _cell(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) and abs(value) < 1000 else str(value)
