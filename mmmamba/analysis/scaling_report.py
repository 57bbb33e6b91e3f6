"""A sweep over input sizes as a picture and as a table of growth exponents."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter
from matplotlib.typing import ColorType

from mmmamba.analysis.power_law import PowerLaw, fit_power_law
from mmmamba.analysis.sweep import Row

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


def fits(rows: Sequence[Row]) -> dict[str, PowerLaw | None]:
    """Growth of memory, FLOPs and latency with the number of pixels, over the rows that did not fail."""
    measured = [row for row in rows if not row['failure']]
    pixels = [int(row['side'])**2 for row in measured]
    return {name: fit_power_law(pixels, [value(row) for row in measured]) for name, value in QUANTITIES.items()}


def exponent_table(rows: Sequence[Row]) -> str:
    """The exponents as markdown: a line for each config, dtype and pass, with its failures in the last column."""
    lines = ['| | pass | dtype | sides | memory | FLOPs | latency | not measured |',
             '|---|---|---|---|---|---|---|---|']
    for config, pass_, dtype in _distinct(rows, 'config', 'pass', 'dtype'):
        own = _select(rows, config=config, pass_=pass_, dtype=dtype)
        sides = [int(row['side']) for row in own if not row['failure']]
        span = f'{min(sides)}–{max(sides)} ({len(sides)})' if sides else '–'
        failed = '; '.join(f'{row["side"]}: {row["failure"].replace("|", "/")}' for row in own if row['failure'])
        exponents = ' | '.join(_exponent(fit, len(sides)) for fit in fits(own).values())
        lines.append(f'| {config} | {pass_} | {dtype} | {span} | {exponents} | {failed} |')
    return '\n'.join(lines)


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
    """One row of each side, of whichever pass and dtype, without failure if there is such a one."""
    found: dict[int, Row] = {}
    for row in rows:
        side = int(row['side'])
        if row['config'] == config and (side not in found or found[side]['failure']):
            found[side] = row
    return [found[side] for side in sorted(found)]
