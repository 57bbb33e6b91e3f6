"""The one table writer: rows as aligned text, as markdown and as HTML; all text in them is taken literally."""
from __future__ import annotations

import html
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# An underscore inside a word means nothing in markdown.
_MARKDOWN_SIGNS = re.compile(r'[\\`*\[\]|~$#]|(?<![^\W_])_|_(?![^\W_])')


@dataclass(frozen=True)
class Table:
    """Rows as long as the header; columns of words are aligned to the left, the others are of numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Collection[str]

    @classmethod
    def of_records(cls, records: Sequence[Mapping[str, Any]]) -> Table:
        """Returns a table of all columns that records have; where a record lacks one, its cell is empty."""
        columns = list(dict.fromkeys(column for record in records for column in record))
        return cls(columns, [[_cell(record.get(column, '')) for column in columns] for record in records], columns)

    def text(self) -> str:
        """Returns the rows in aligned columns, for a screen."""
        return '\n'.join('  '.join(cells).rstrip() for cells in self._padded([self.header, *self.rows]))

    def markdown(self, aligned: bool = False) -> str:
        """Returns a table of GitHub's markdown.

        Args:
            aligned: Whether columns are filled up with spaces, for a reader of the text itself.
        """
        lines: list[Sequence[str]] = [self.header, *([literal_markdown(cell) for cell in row] for row in self.rows)]
        rule = ['---' if name in self.words else '---:' for name in self.header]
        if aligned:
            lines = [*self._padded(lines)]
            rule = ['-' * len(cell) if name in self.words else '-' * (len(cell) - 1) + ':'
                    for name, cell in zip(self.header, lines[0])]
        lines.insert(1, rule)
        return '\n'.join(f"| {' | '.join(line)} |" for line in lines)

    def html(self) -> str:
        """Returns a table element."""
        body = '\n'.join(self._html_row('td', row) for row in self.rows)
        return f"<table>\n<thead>{self._html_row('th', self.header)}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"

    def _html_row(self, tag: str, cells: Sequence[str]) -> str:
        style = {True: ' class="words"', False: ''}
        inner = (f'<{tag}{style[name in self.words]}>{html.escape(cell)}</{tag}>'
                 for name, cell in zip(self.header, cells))
        return f"<tr>{''.join(inner)}</tr>"

    def _padded(self, lines: Sequence[Sequence[str]]) -> list[list[str]]:
        widths = [max(map(len, column)) for column in zip(*lines)]
        return [[cell.ljust(width) if name in self.words else cell.rjust(width)
                 for name, cell, width in zip(self.header, line, widths)] for line in lines]


def literal_markdown(text: str) -> str:
    """Escapes what markdown or HTML inside it would take as a sign, on one line."""
    return _MARKDOWN_SIGNS.sub(r'\\\g<0>', html.escape(' '.join(text.split()), quote=False))


def _cell(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) and abs(value) < 1000 else str(value)
