"""Documents: relative links lead somewhere, tables have as many cells in every row, and what commands name exists."""
from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import FENCE, ROOT, documents


def _prose(path: Path) -> str:
    return FENCE.sub('', path.read_text(encoding='utf-8'))


def _anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub names them."""
    headings = re.findall(r'^#+ (.+)$', _prose(path), re.MULTILINE)
    texts = [re.sub(r'\[([^]]*)]\([^)]*\)', r'\1', heading).strip().lower() for heading in headings]
    return {re.sub(r'[^\w\- ]', '', text).replace(' ', '-') for text in texts}


@pytest.mark.parametrize('name', documents())
def test_relative_links_lead_somewhere(name):
    path = ROOT / name
    for link in re.findall(r']\(([^)\s]+)\)', _prose(path)):
        if re.match(r'\w+:', link):
            continue
        file, _, anchor = link.partition('#')
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f'{name}: {link}'
        if anchor and target.suffix == '.md':
            assert anchor in _anchors(target), f'{name}: {link}'


@pytest.mark.parametrize('name', documents())
def test_rows_of_a_table_have_as_many_cells(name):
    for table in re.findall(r'(?:^\|.*\n?)+', _prose(ROOT / name), re.MULTILINE):
        rows = table.splitlines()
        cells = {len(re.findall(r'(?<!\\)\|', row)) for row in rows}
        assert len(cells) == 1, f'{name}: {rows[0]}'


@pytest.mark.parametrize('name', documents())
def test_what_commands_name_exists(name):
    for block in FENCE.findall((ROOT / name).read_text(encoding='utf-8')):
        for file in re.findall(r'(?<![\w./-])(?:tools|configs)/[\w./-]+\.(?:py|sh)(?=\s|$)', block):
            assert (ROOT / file).exists(), f'{name}: {file}'
        for module in re.findall(r'python -m (benchmarks|mmmamba)\.([\w.]+)', block):
            file = ROOT / module[0] / module[1].replace('.', '/')
            assert file.with_suffix('.py').exists() or (file / '__init__.py').exists(), f'{name}: {".".join(module)}'
