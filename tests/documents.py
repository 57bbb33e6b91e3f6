"""The documents of the repository and the blocks of code in them, for tests."""
from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r'^```.*?^```', re.DOTALL | re.MULTILINE)
_MARK = r'(?:^<!-- (?P<mark>not run|run by): (?P<why>[^\n]+?) -->\n)?'
_BLOCK = re.compile(_MARK + r'^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```', re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its document and line, language and text, and ``'not run'`` or ``'run by'`` if it is marked."""
    document: str
    line: int
    language: str
    text: str
    mark: str | None
    why: str | None

    def __str__(self) -> str:
        return f'{self.document}:{self.line}'


def documents() -> list[str]:
    """Returns the paths of all documents, relative to the root of the repository."""
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard', '*.md']
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    existing = [name for name in listed if (ROOT / name).is_file()]
    return existing or [str(path.relative_to(ROOT)) for path in (ROOT / 'README.md', *ROOT.glob('docs/**/*.md'))]


def blocks(document: str) -> list[Block]:
    """Returns the fenced blocks of a document, in order."""
    text = (ROOT / document).read_text(encoding='utf-8')
    return [Block(document, text.count('\n', 0, found.start()) + 1, found['language'], found['text'], found['mark'],
                  found['why']) for found in _BLOCK.finditer(text)]
