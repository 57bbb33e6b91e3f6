"""Costs over input sizes: many measurements, each in a process of its own, the CSV that holds them, and its report."""
from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter
from matplotlib.typing import ColorType

from mmmamba.analysis.detector import DETECTOR_ENVIRONMENT, detector_environment, model_config
from mmmamba.analysis.measure import PowerLaw, Row, Table, fit_power_law, read_csv, write_csv
from mmmamba.analysis.measurement import Task, encoded
from mmmamba.errors import InputError

KEY = ('config', 'pass', 'dtype', 'side')
RESULTS = ('failure', 'memory_mib', 'total_mib', 'parameters', 'linear_gflops', 'scan_gflops', 'median_ms', 'p20_ms',
           'p80_ms', 'images_per_s')
COLUMNS = (*KEY, *RESULTS, 'runs', 'model', *DETECTOR_ENVIRONMENT)
QUANTITIES = MappingProxyType({
    'memory': lambda row: float(row['memory_mib']),
    'FLOPs': lambda row: float(row['linear_gflops']) + float(row['scan_gflops']),
    'latency': lambda row: float(row['median_ms']),
})
"""What is fitted, from a row without failure."""
_PANELS = (
    ('memory', 'peak memory above the weights, MiB'),
    ('FLOPs', 'GFLOPs of a forward pass (scans alone: thin)'),
    ('latency', 'ms (bars: p20 to p80)'),
    ('throughput', 'images/s'),
)
_MARKERS = 'osD^vP*X'


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
    rows = {}
    if path.exists():
        rows = {tuple(row[column] for column in KEY): row for row in read_csv(path, COLUMNS)}
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
            write_csv(path, rows.values(), COLUMNS)
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


def model_digest(config: str) -> str:
    """Returns what tells the model of a config file, with all that it inherits, from others."""
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


def fits(rows: Sequence[Row]) -> dict[str, PowerLaw | None]:
    """Fits the growth of memory, FLOPs and latency with the number of pixels, over the rows that did not fail."""
    measured = [row for row in rows if not row['failure']]
    pixels = [int(row['side'])**2 for row in measured]
    return {name: fit_power_law(pixels, [value(row) for row in measured]) for name, value in QUANTITIES.items()}


def exponent_table(rows: Sequence[Row]) -> str:
    """Writes the exponents as markdown: a line for each config, dtype and pass, with its failures in the last cell."""
    lines = []
    for config, pass_, dtype in _distinct(rows, 'config', 'pass', 'dtype'):
        own = _select(rows, config=config, pass_=pass_, dtype=dtype)
        sides = [int(row['side']) for row in own if not row['failure']]
        span = f'{min(sides)}–{max(sides)} ({len(sides)})' if sides else '–'
        failed = '; '.join(f'{row["side"]}: {row["failure"]}' for row in own if row['failure'])
        exponents = [_exponent(fit, len(sides)) for fit in fits(own).values()]
        lines.append([config, pass_, dtype, span, *exponents, failed])
    words = ('', 'pass', 'dtype', 'sides', 'not measured')
    return Table((*words[:4], *QUANTITIES, words[4]), lines, words).markdown()


def _exponent(fit: PowerLaw | None, sides: int) -> str:
    if fit is None:
        return '–'
    return str(fit) if fit.points == sides else f'{fit} ({fit.points} of them)'


def draw_scaling(rows: Sequence[Row], out: Path) -> None:
    """Draws the costs against the side, logarithmic, a colour for each config, with the fits dotted.

    Each pass and dtype has a line of panels; FLOPs, which are the same in all, are in the first, whichever pass was
    measured. A cross at the top marks a side that could not be measured.

    Args:
        rows: Of a sweep.
        out: The PNG to write.
    """
    lines = _distinct(rows, 'pass', 'dtype')
    colours = matplotlib.color_sequences['tab10']
    styles = {config: (colours[index % len(colours)], _MARKERS[index % len(_MARKERS)])
              for index, (config,) in enumerate(_distinct(rows, 'config'))}
    sides = sorted({int(row['side']) for row in rows})
    figure = Figure(figsize=(4.3 * len(_PANELS), 1.2 + 3.6 * len(lines)), layout='constrained')
    axes = figure.subplots(len(lines), len(_PANELS), squeeze=False)
    for index, (pass_, dtype) in enumerate(lines):
        for (quantity, unit), axis in zip(_PANELS, axes[index]):
            if quantity == 'FLOPs' and index:
                axis.remove()
                continue
            drawn = [_of_any_pass(rows, config) if quantity == 'FLOPs' else _select(rows, config, pass_, dtype)
                     for config in styles]
            measured = any(not row['failure'] for own in drawn for row in own)
            for height, (style, own) in enumerate(zip(styles.values(), drawn)):
                _draw(axis, quantity, own, *style)
                failed = [int(row['side']) for row in own if row['failure']]
                # In units of the axis upwards, one config below the other.
                axis.plot(failed, [0.97 - 0.04 * height] * len(failed), 'x', color=style[0],
                          transform=axis.get_xaxis_transform())
            title = quantity if quantity == 'FLOPs' else f'{quantity}, {pass_}, {dtype}'
            axis.set(xscale='log', yscale='log' if measured else 'linear', ylabel=unit, title=title)
            axis.set_xticks(sides, [f'{side}²' for side in sides], rotation=45)
            axis.set_xticks([], minor=True)
            if measured:
                axis.yaxis.set_major_formatter('{x:g}')
                axis.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.5)))
            axis.grid(which='both', alpha=0.25)
            if axis.get_legend_handles_labels()[1]:
                axis.legend(title='exponent against pixels', fontsize='small', title_fontsize='small')
    handles = [Line2D([], [], color=colour, marker=marker, label=config)
               for config, (colour, marker) in styles.items()]
    where = 'batch 1, {device}, CPU threads: {threads}, torch {torch}'.format_map(rows[0])
    title = f'{where}; dotted: power laws; crosses: not measured'
    figure.legend(handles=handles, title=title, loc='outside upper center', ncols=min(4, len(handles)))
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)


def _draw(axis: Axes, quantity: str, rows: Sequence[Row], colour: ColorType, marker: str) -> None:
    measured = sorted((row for row in rows if not row['failure']), key=lambda row: int(row['side']))
    if not measured:
        return
    sides = [int(row['side']) for row in measured]
    if quantity == 'throughput':
        axis.plot(sides, [float(row['images_per_s']) for row in measured], color=colour, marker=marker)
        return
    values = [QUANTITIES[quantity](row) for row in measured]
    spread = None
    if quantity == 'latency':
        spread = [[ms - float(row['p20_ms']) for ms, row in zip(values, measured)],
                  [float(row['p80_ms']) - ms for ms, row in zip(values, measured)]]
    fit = fits(measured)[quantity]
    axis.errorbar(sides, values, spread, capsize=2, linestyle='none', color=colour, marker=marker,
                  label=str(fit) if fit else None)
    if fit:
        axis.plot(sides, [fit(side**2) for side in sides], ':', color=colour)
    scans = [float(row['scan_gflops']) for row in measured]
    if quantity == 'FLOPs' and all(scans):
        axis.plot(sides, scans, linewidth=0.7, color=colour)


def _distinct(rows: Iterable[Row], *columns: str) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(tuple(row[column] for column in columns) for row in rows))


def _select(rows: Iterable[Row], config: str, pass_: str, dtype: str) -> list[Row]:
    wanted = (config, pass_, dtype)
    return sorted((row for row in rows if (row['config'], row['pass'], row['dtype']) == wanted),
                  key=lambda row: int(row['side']))


def _of_any_pass(rows: Iterable[Row], config: str) -> list[Row]:
    """Returns one row of each side, of whichever pass and dtype, without failure if there is such a one."""
    found: dict[int, Row] = {}
    for row in rows:
        side = int(row['side'])
        if row['config'] == config and (side not in found or found[side]['failure']):
            found[side] = row
    return [found[side] for side in sorted(found)]
