"""A report as data, written as markdown or as HTML; all text in it is taken literally."""
from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mmmamba.analysis.measure.tables import literal_markdown

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 90rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #ccc; padding: .3rem .6rem; text-align: right; }
.words { text-align: left; }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; }
img { max-width: 100%; height: auto; }
"""


class Part(Protocol):
    """Something that can be written both ways."""

    def markdown(self) -> str: ...

    def html(self) -> str: ...


@dataclass(frozen=True)
class Text:
    """A paragraph."""
    text: str

    def markdown(self) -> str:
        return literal_markdown(self.text)

    def html(self) -> str:
        return f'<p>{html.escape(self.text)}</p>'


@dataclass(frozen=True)
class Code:
    """Lines to be copied."""
    text: str

    def markdown(self) -> str:
        fence = '`' * max(3, 1 + max(map(len, re.findall('`+', self.text)), default=0))
        return f'{fence}bash\n{self.text}\n{fence}'

    def html(self) -> str:
        return f'<pre><code>{html.escape(self.text)}</code></pre>'


@dataclass(frozen=True)
class Picture:
    """An image file that lies beside the document."""
    file: str
    description: str

    def markdown(self) -> str:
        return f'![{literal_markdown(self.description)}]({self.file})'

    def html(self) -> str:
        return f'<p><img src="{html.escape(self.file)}" alt="{html.escape(self.description)}"></p>'


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Document:
    """A title and what is below it: parts, then sections."""
    title: str
    parts: Sequence[Part]
    sections: Sequence[Section]

    def markdown(self) -> str:
        """Writes it in GitHub's markdown."""
        blocks = [f'# {literal_markdown(self.title)}', *(part.markdown() for part in self.parts)]
        for section in self.sections:
            blocks += [f'## {literal_markdown(section.title)}', *(part.markdown() for part in section.parts)]
        return '\n\n'.join(blocks) + '\n'

    def html(self) -> str:
        """Writes it as one page that loads nothing but the pictures beside it."""
        title = html.escape(self.title)
        lines = ['<!DOCTYPE html>', '<html lang="en">', '<head>', '<meta charset="utf-8">',
                 '<meta name="viewport" content="width=device-width, initial-scale=1">',
                 f'<title>{title}</title>', f'<style>{_STYLE}</style>', '</head>', '<body>', f'<h1>{title}</h1>',
                 *(part.html() for part in self.parts)]
        for section in self.sections:
            lines += [f'<h2>{html.escape(section.title)}</h2>', *(part.html() for part in section.parts)]
        return '\n'.join([*lines, '</body>', '</html>']) + '\n'
