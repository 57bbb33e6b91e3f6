"""Boxes and arrows as SVG, for light and dark pages."""
from __future__ import annotations

from collections.abc import Sequence
from html import escape

Point = tuple[float, float]
HEIGHT = 34
GAP = 22
# In light and dark: fill, stroke.
KINDS = {
    'conv': (('#e4ecfd', '#5b7bd5'), ('#24324f', '#8aa5f0')),
    'scan': (('#fde9d4', '#d5813a'), ('#4a3320', '#eba763')),
    'norm': (('#ececf0', '#8a8d96'), ('#34363c', '#9a9da6')),
    'act': (('#e2f3e4', '#4f9a5a'), ('#22402a', '#7cc488')),
    'attention': (('#efe3fb', '#8c5fc0'), ('#3a2a50', '#b892e6')),
    'map': (('#ffffff', '#8a8d96'), ('#17181c', '#9a9da6')),
}
INK, LINE = ('#1c1d21', '#e8e9ec'), ('#5c606a', '#a7abb4')


def _style(index: int) -> str:
    kinds = ''.join(f'.{name}{{fill:{pair[index][0]};stroke:{pair[index][1]}}}' for name, pair in KINDS.items())
    return (f'{kinds}text{{fill:{INK[index]}}}.line{{stroke:{LINE[index]}}}.tip,.dot{{fill:{LINE[index]}}}'
            f'.path{{stroke:{KINDS["scan"][index][1]}}}.start{{fill:{KINDS["scan"][index][1]}}}')


class Canvas:
    """Collects shapes; coordinates are pixels from the top left."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.shapes: list[str] = []
        self.right = self.bottom = 0.0

    def box(self, x: float, y: float, text: str, kind: str, width: float | None = None,
            height: float = HEIGHT) -> tuple[float, float]:
        """Draws a box with a line of text, or several, around the height y; returns its left and right side."""
        lines = text.split('\n')
        width = width or max(7.1 * max(map(len, lines)) + 20, HEIGHT)
        top = y - height / 2
        self.shapes.append(f'<rect class="{kind}" x="{x:g}" y="{top:g}" width="{width:g}" height="{height:g}" '
                           'rx="6"/>')
        for number, line in enumerate(lines):
            self.text(x + width / 2, y + 4.5 + 15 * (number - (len(lines) - 1) / 2), line)
        self._reach(x + width, top + height)
        return x, x + width

    def text(self, x: float, y: float, text: str, anchor: str = 'middle', size: float = 13) -> None:
        """Writes a line whose base is at y."""
        self.shapes.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size:g}">{escape(text)}'
                           '</text>')
        end = {'middle': x + 3.6 * len(text), 'start': x + 7.1 * len(text), 'end': x}[anchor]
        self._reach(end, y + 4)

    def arrow(self, *points: Point, tip: bool = True) -> None:
        """Draws a line through the points, with a tip at the end."""
        path = 'M' + 'L'.join(f'{x:g} {y:g}' for x, y in points)
        self.shapes.append(f'<path class="line" d="{path}" fill="none" stroke-width="1.4"/>')
        if tip:
            (x0, y0), (x, y) = points[-2:]
            length = ((x - x0)**2 + (y - y0)**2)**0.5
            dx, dy = (x - x0) / length, (y - y0) / length
            corners = ((x, y), (x - 8 * dx - 4 * dy, y - 8 * dy + 4 * dx), (x - 8 * dx + 4 * dy, y - 8 * dy - 4 * dx))
            self.shapes.append(f'<path class="tip" d="M{"L".join(f"{a:g} {b:g}" for a, b in corners)}Z"/>')
        for point in points:
            self._reach(*point)

    def operation(self, x: float, y: float, sign: str) -> tuple[float, float]:
        """Draws a circle with + or × around (x, y); returns its left and right side."""
        self.shapes.append(f'<circle class="map" cx="{x:g}" cy="{y:g}" r="10"/>')
        self.text(x, y + 5, sign, size=15)
        return x - 10, x + 10

    def chain(self, x: float, y: float, items: Sequence[tuple[str, str]]) -> dict[int, tuple[float, float]]:
        """Draws boxes from left to right with arrows between; returns the sides of each.

        Args:
            x, y: Where the first begins.
            items: Text and kind; of kind ``'op'`` is a sign in a circle, ``'note'`` is plain text.
        """
        sides: dict[int, tuple[float, float]] = {}
        for number, (text, kind) in enumerate(items):
            if number:
                self.arrow((x, y), (x + GAP, y))
                x += GAP
            if kind == 'op':
                sides[number] = self.operation(x + 10, y, text)
            elif kind == 'note':
                self.text(x + 3.6 * len(text) + 4, y + 4.5, text)
                sides[number] = (x, x + 7.2 * len(text) + 8)
            else:
                sides[number] = self.box(x, y, text, kind)
            x = sides[number][1]
        return sides

    def residual(self, start: float, end: float, y: float, rise: float = 36) -> None:
        """Draws what goes around a branch, from a point of the chain at height y into the circle at ``end``."""
        self.shapes.append(f'<circle class="dot" cx="{start:g}" cy="{y:g}" r="2.6"/>')
        self.arrow((start, y), (start, y - rise), (end, y - rise), (end, y - 10))

    def order(self, x: float, y: float, side: float, cells: int, visits: Sequence[Sequence[Point]], name: str) -> None:
        """Draws a grid and the ways through it, each from a dot to a tip."""
        step = side / cells
        self.shapes.append(f'<rect class="map" x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}"/>')
        lines = ''.join(f'M{x:g} {y + i * step:g}h{side:g}M{x + i * step:g} {y:g}v{side:g}' for i in range(1, cells))
        self.shapes.append(f'<path class="line" d="{lines}" stroke-width=".4" opacity=".6"/>')
        for way in visits:
            points = [(x + (column + 0.5) * step, y + (row + 0.5) * step) for row, column in way]
            path = 'M' + 'L'.join(f'{a:.4g} {b:.4g}' for a, b in points)
            self.shapes.append(f'<path class="path" d="{path}" fill="none" stroke-width="1.6"/>')
            self.shapes.append(f'<circle class="start" cx="{points[0][0]:.4g}" cy="{points[0][1]:.4g}" r="3"/>')
            (x0, y0), (x1, y1) = points[-2:]
            length = ((x1 - x0)**2 + (y1 - y0)**2)**0.5
            dx, dy = 5 * (x1 - x0) / length, 5 * (y1 - y0) / length
            self.shapes.append(f'<path class="start" d="M{x1 + dx:.4g} {y1 + dy:.4g}L{x1 - dy:.4g} {y1 + dx:.4g}L'
                               f'{x1 + dy:.4g} {y1 - dx:.4g}Z"/>')
        self.text(x + side / 2, y + side + 18, name)
        self._reach(x + side, y + side)

    def svg(self) -> str:
        """Returns the drawing as a file's text."""
        width, height = self.right + 12, self.bottom + 12
        shapes = '\n'.join(self.shapes)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
                f'height="{height:.0f}" font-family="system-ui, sans-serif" role="img">\n<title>{escape(self.title)}'
                f'</title>\n<style>{_style(0)}@media(prefers-color-scheme:dark){{{_style(1)}}}</style>\n{shapes}\n</svg>\n')

    def _reach(self, x: float, y: float) -> None:
        self.right, self.bottom = max(self.right, x), max(self.bottom, y)
