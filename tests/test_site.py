"""The site of `make docs`: it is built without a warning, has every page, and asks other hosts for nothing.

The notebook and the drawings, too.
"""
from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, documents

NOTEBOOK = ROOT / 'docs/notebooks/get_started.ipynb'
DRAWINGS = ROOT / 'docs/drawings'
NAVIGATION = ROOT / 'docs/site/navigation.md'
LINKED = ('docs/adr/0', 'docs/comparisons/', 'benchmarks/scaling_cpu/', '.github/', 'docs/site/')
"""Pages that other pages link to instead; and files that are no pages."""


@pytest.mark.parametrize('name', [name for name in documents() if not name.startswith(LINKED) and name != 'README.md'])
def test_every_page_is_in_the_navigation(name):
    listed = re.findall(r'/[\w/-]+(?=>?$)', NAVIGATION.read_text(encoding='utf-8'), re.MULTILINE)
    assert f'/{name.removesuffix(".md")}' in listed, f'{name} needs a line in docs/site/navigation.md'


def test_notebook_runs(tmp_path, monkeypatch):
    content = json.loads(NOTEBOOK.read_text(encoding='utf-8'))
    cells = [cell for cell in content['cells'] if cell['cell_type'] == 'code']
    assert all(not cell['outputs'] and cell['execution_count'] is None for cell in cells)
    assert len({cell['id'] for cell in content['cells']}) == len(content['cells'])
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    namespace, shown = {}, []
    for number, cell in enumerate(cells):
        parsed = ast.parse(''.join(cell['source']), f'cell {number}')
        last = parsed.body.pop() if isinstance(parsed.body[-1], ast.Expr) else None
        exec(compile(parsed, f'cell {number}', 'exec'), namespace)
        if last:
            shown.append(eval(compile(ast.Expression(last.value), f'cell {number}', 'eval'), namespace))
    folders, (scores, *_), picture, (shape, _) = shown
    assert folders == ['annotations', 'train', 'val'] and scores
    assert picture.size == (128, 128) and tuple(shape) == (1, 32, 20, 24)


def test_drawings_are_those_of_the_script(monkeypatch):
    monkeypatch.syspath_prepend(str(DRAWINGS))
    drawn = {f'{draw.__name__}.svg': draw().svg() for draw in runpy.run_path(str(DRAWINGS / 'draw.py'))['DRAWINGS']}
    assert drawn == {path.name: path.read_text(encoding='utf-8') for path in DRAWINGS.glob('*.svg')}, \
        'run python docs/drawings/draw.py'


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needed = ('sphinx', 'furo', 'myst_parser', 'latex2mathml')
    missing = [name for name in needed if not importlib.util.find_spec(name)]
    if missing:
        pytest.skip(f'{missing[0]} is not installed: pip install -r requirements/docs.txt')
    out = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-c', 'docs', '-d', str(out / 'trees'), '.',
               str(out / 'html')]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                           env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert built.returncode == 0, built.stderr
    return out / 'html'


def test_pages_ask_other_hosts_for_nothing(site):
    loads = re.compile(r'<(?:script|img|iframe|source)[^>]* src="https?:|<link[^>]* href="https?:|@import|'
                       r'url\(["\']?https?:')
    for path in [*site.rglob('*.html'), *site.rglob('*.css')]:
        found = loads.search(path.read_text(encoding='utf-8'))
        assert not found, f'{path.relative_to(site)}: {found[0]}'


def test_links_of_the_site_lead_somewhere(site):
    for path in site.rglob('*.html'):
        for link in re.findall(r' href="([^"#?]+)', path.read_text(encoding='utf-8')):
            if not re.match(r'\w+:', link):
                assert (path.parent / link).exists(), f'{path.relative_to(site)}: {link}'


def test_first_page_and_equations(site):
    first = (site / 'index.html').read_text(encoding='utf-8')
    assert 'What has and has not been run' in first and 'docs/get_started.html' in first and '<img' in first
    assert '<math' in (site / 'mmmamba/ops/scan/README.html').read_text(encoding='utf-8')
    assert 'ss2d_scan' in (site / 'docs/api/ops.html').read_text(encoding='utf-8')
