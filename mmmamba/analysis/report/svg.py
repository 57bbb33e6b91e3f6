"""Line charts as SVG inside a page: its colours are the page's, so that they suit its light and its dark form."""
from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np

STYLE = """
.chart { width: 100%; max-width: 40rem; height: auto; font: 13px system-ui, sans-serif; }
@media (max-width: 34rem) { .chart { font-size: 16px; } }
.chart text { fill: var(--muted); }
.chart .grid { stroke: var(--line); }
.chart .mark { stroke: var(--muted); stroke-dasharray: 4 3; }
.chart polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.chart .mean { stroke-width: 3; }
.chart .faint { stroke-width: 1; opacity: .45; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1rem; font-size: .85rem; margin: .4rem 0 0; padding: 0;
  list-style: none; }
.legend i { display: inline-block; width: 1.1em; height: .22em; border-radius: 2px; margin-right: .45em;
  vertical-align: middle; }
"""
TEXT, GREY = 'var(--text)', 'var(--muted)'
COLOURS = ('var(--accent)', 'var(--accent-2)', 'var(--good)', 'var(--accent-3)', 'var(--bad)', 'var(--warn)')
"""Of classes; with more of them, their lines are grey."""
Numbers = Union[Sequence[float], np.ndarray]
_WIDTH, _HEIGHT = 440, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 42


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Args:
        name: In the legend, and shown when the pointer is on it.
        x: Positions, in rising order.
        y: Values; the line is interrupted where one is NaN.
        colour: A CSS colour.
        kind: ``''``, ``'mean'`` (thick) or ``'faint'`` (thin, and not in the legend).
        dots: Whether each value has a dot.
    """
    name: str
    x: Numbers
    y: Numbers
    colour: str
    kind: str = ''
    dots: bool = False


def chart(lines: Sequence[Line], x_label: str, y_label: str, *, x_end: float = 1.0, y_end: float = 1.0,
          mark: float | None = None) -> str:
    """Draws lines from 0 on both axes, with a legend below.

    Args:
        lines: The first is at the bottom.
        x_label: Of the axis.
        y_label: Of the axis.
        x_end: Largest position.
        y_end: Largest value; what is above it is cut.
        mark: Where a vertical line is.

    Returns:
        A ``<figure>``.
    """
    parts = [*_axes(x_label, y_label, x_end, y_end)]
    if mark is not None:
        x = _x(mark, x_end)
        parts.append(f'<line class="mark" x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
    parts += [_drawn(line, x_end, y_end) for line in lines]
    label = html.escape(f'{y_label} against {x_label}')
    named = sorted((line for line in lines if line.kind != 'faint'), key=lambda line: line.kind != 'mean')
    legend = ''.join(f'<li><i style="background: {line.colour}"></i>{html.escape(line.name)}</li>'
                     for line in named)
    return (f'<figure><svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
            f'{"".join(parts)}</svg><ul class="legend">{legend}</ul></figure>')


def class_lines(names: Sequence[str], x: Numbers, values: Sequence[Numbers] | np.ndarray, mean: Numbers,
                mean_name: str) -> list[Line]:
    """Returns a line for each class and a thick one for their mean; grey ones where there are more than colours."""
    many = len(names) > len(COLOURS)
    lines = [Line(name, x, y, GREY if many else COLOURS[number], 'faint' if many else '')
             for number, (name, y) in enumerate(zip(names, values))]
    return lines if len(names) == 1 else [*lines, Line(mean_name, x, mean, TEXT, 'mean')]


def round_ticks(end: float) -> list[float]:
    """Returns five to eleven round numbers from 0 up to ``end``, which is positive."""
    rough = end / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = max(unit * factor for factor in (1, 2, 5) if unit * factor <= rough * (1 + 1e-9))
    return [number * step for number in range(int(end / step + 1e-6) + 1)]


def _x(value: float, end: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * value / end, 1)


def _y(value: float, end: float) -> float:
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * min(value, end) / end, 1)


def _axes(x_label: str, y_label: str, x_end: float, y_end: float) -> list[str]:
    parts, floor, right = [], _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for tick in round_ticks(y_end):
        y = _y(tick, y_end)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
                     f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    for tick in round_ticks(x_end):
        parts.append(f'<text x="{_x(tick, x_end)}" y="{floor + 16}" text-anchor="middle">{tick:g}</text>')
    middle = (_TOP + floor) / 2
    return [*parts, f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{html.escape(x_label)}'
            f'</text><text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{html.escape(y_label)}'
            f'</text>']


def _drawn(line: Line, x_end: float, y_end: float) -> str:
    pieces: list[list[str]] = [[]]
    for x, y in zip(line.x, line.y):
        if math.isnan(y):
            pieces.append([])
        else:
            pieces[-1].append(f'{_x(x, x_end)},{_y(y, y_end)}')
    drawn = ''.join(f'<polyline class="{line.kind}" points="{" ".join(piece)}"/>' for piece in pieces if piece)
    if line.dots:
        drawn += ''.join('<circle r="3" cx="{}" cy="{}" fill="{}"/>'.format(*point.split(','), line.colour)
                         for piece in pieces for point in piece)
    return f'<g stroke="{line.colour}"><title>{html.escape(line.name)}</title>{drawn}</g>'
