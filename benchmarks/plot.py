"""Draws the rows of ``benchmarks.scan``: ``python -m benchmarks.plot ROWS.csv PICTURE.png`` (needs matplotlib)."""
from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from mmmamba.analysis.measure import Row

MARKERS = 'osD^vP*X'


def plot_scans(rows: Sequence[Row], path: Path) -> None:
    """Plots the time of each scan by backend, logarithmic, with p20 to p80; a panel for each pass, mode and dtype.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit('error: a plot needs matplotlib; the CSV can be drawn elsewhere: '
                         'python -m benchmarks.plot ROWS.csv PICTURE.png') from None
    rows = [row for row in rows if row.get('height') and row.get('median_ms')]  # no sums, no failures
    panels = list(dict.fromkeys(_panel(row) for row in rows))
    backends = list(dict.fromkeys(row['backend'] for row in rows))
    shapes = list(dict.fromkeys(_shape(row) for row in rows))
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(1.5 + columns * (2 + 0.7 * len(shapes)), 1 + 3.6 * lines), layout='constrained')
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True).flatten()
    for panel, axis in zip(panels, axes):
        for index, backend in enumerate(backends):
            own = [row for row in rows if row['backend'] == backend and _panel(row) == panel]
            if not own:
                continue
            medians = [float(row['median_ms']) for row in own]
            spread = [[m - float(row['p20_ms']) for m, row in zip(medians, own)],
                      [float(row['p80_ms']) - m for m, row in zip(medians, own)]]
            axis.errorbar([shapes.index(_shape(row)) for row in own], medians, spread, label=backend, capsize=3,
                          marker=MARKERS[index % len(MARKERS)], linestyle=':', linewidth=1)
        axis.set_yscale('log')
        axis.yaxis.set_major_formatter('{x:g}')
        axis.set_title(panel)
        axis.set_ylabel('ms')
        axis.tick_params(labelleft=True)
        axis.grid(axis='y', which='both', alpha=0.3)
        axis.set_xticks(range(len(shapes)), shapes, rotation=30, ha='right')
    for axis in axes[len(panels):]:
        axis.remove()
    axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _panel(row: Row) -> str:
    return f'{row["pass"]}, {row["dtype"]}, {row["mode"]}'


def _shape(row: Row) -> str:
    return f'{row["channels"]} x {row["height"]} x {row["width"]}'


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('rows', type=Path)
    parser.add_argument('picture', type=Path)
    args = parser.parse_args(arguments)
    with args.rows.open(newline='', encoding='utf-8') as file:
        plot_scans(list(csv.DictReader(file)), args.picture)


if __name__ == '__main__':
    main()
