"""The site of `make docs`, made by Sphinx of the documents as they are in the repository, wherever they are in it.

The sources are all of the repository, so that links between documents are what they are in the repository, too; links
to other files lead to copies of them. Nothing on the site asks another host for anything: equations are MathML, and
fonts are the reader's.
"""
from __future__ import annotations

import json
import re
import shutil
import sys
from importlib import import_module
from operator import attrgetter
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmmamba.version import __version__  # noqa: E402

project = 'mmmamba'
copyright = 'the authors of mmmamba; Apache-2.0'
version = release = __version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
root_doc = 'README'
include_patterns = ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'docs/**', 'configs/**/README.md',
                    'mmmamba/ops/*/README.md', 'benchmarks/**.md']

myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 4
html_math_renderer = 'mathml'

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_default_options = {'members': True}
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
napoleon_custom_sections = ['Shape']
napoleon_use_ivar = True
napoleon_use_rtype = False
add_module_names = False
python_use_unqualified_type_names = True

# Decisions, one by one, and reports are reached by links. test_site.py has which pages must be in the navigation.
suppress_warnings = ['toc.not_included']
exclude_patterns = ['docs/site/**', '.*', 'build', 'data', 'site', 'tests', 'work_dirs']

html_theme = 'furo'
html_title = f'mmmamba {version}'
html_static_path = ['site']
html_css_files = ['style.css']
html_show_sphinx = False
html_copy_source = False
pygments_style = 'default'
pygments_dark_style = 'github-dark'

NAVIGATION = ROOT / 'docs/site/navigation.md'
LINK = re.compile(r'(?<!!)\[(?P<text>(?:[^][]|\[[^]]*])*)]\((?P<target>[^)\s:]+)\)')


class NotebookParser(MystParser):
    """Parses a notebook without outputs: its texts, and its code as Python."""

    supported = ('notebook',)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        cells = ((cell['cell_type'], ''.join(cell['source'])) for cell in json.loads(inputstring)['cells'])
        super().parse('\n\n'.join(f'```python\n{text}\n```' if kind == 'code' else text for kind, text in cells),
                      document)


def lead_folders_somewhere(app: Sphinx, name: str, source: list[str]) -> None:
    """Has links to folders lead to the README in them, and takes those to others away."""
    def lead(link: re.Match[str]) -> str:
        folder = (ROOT / name).parent / link['target']
        if not folder.is_dir():
            return link[0]
        return f'[{link["text"]}]({link["target"]}/README.md)' if (folder / 'README.md').is_file() else link['text']

    source[0] = LINK.sub(lead, source[0])


def add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """Puts the table of all pages after the first."""
    if name == app.config.root_doc:
        source[0] += NAVIGATION.read_text(encoding='utf-8')


def copy_first_page(app: Sphinx, error: Exception | None) -> None:
    """Gives the first page the name that servers look for."""
    if error is None:
        shutil.copyfile(Path(app.outdir, f'{app.config.root_doc}.html'), Path(app.outdir, 'index.html'))


def source_of(app: Sphinx, module: str, name: str) -> str:
    """Returns the module of ours that has the source of a public name; a table's type has none there."""
    try:
        defined = str(getattr(attrgetter(name)(import_module(module)), '__module__', ''))
    except AttributeError:  # of an annotation without a value
        return module
    return defined if defined.startswith('mmmamba.') else module


def inline_equation(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block_equation(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_source_suffix('.ipynb', 'notebook')
    app.add_source_parser(NotebookParser)
    app.add_html_math_renderer('mathml', (inline_equation, None), (block_equation, None))
    app.connect('viewcode-follow-imported', source_of)
    app.connect('source-read', lead_folders_somewhere)
    app.connect('source-read', add_navigation)
    app.connect('build-finished', copy_first_page)
