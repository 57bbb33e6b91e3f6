"""ops → layers → convert → models → deploy → datasets → settings → engine → recipes → analysis → commands → tools.

Each part imports only to its left; errors, compat and a few helpers are left of all.
"""
from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'mmmamba'
BASE = ('errors', 'version', 'files', 'seeding', 'model_config', 'package_files', 'downloads', 'compat')
CHAIN = (*BASE, 'ops', 'layers', 'convert', 'zoo', 'models', 'deploy', 'datasets', 'settings', 'engine', 'recipes',
         'analysis', 'cli', 'commands', '__main__')
PURE = {'ops', 'layers', 'deploy', 'analysis/measure'}
OPENMMLAB = {'mmcv', 'mmdet', 'mmengine'}


def imports(path: Path, functions: bool = True) -> set[str]:
    """Absolute names of the modules that a file imports; without ``functions``, only those at import time."""
    found, pending = set(), [ast.parse(path.read_text(encoding='utf-8'))]
    parts = path.relative_to(ROOT).with_suffix('').parts
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(parts[: len(parts) - node.level]) + '.' if node.level else ''
            module = (base + (node.module or '')).rstrip('.')
            found |= {module} | {f'{module}.{alias.name}' for alias in node.names}
        later = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING')
        if functions or not later:
            pending += ast.iter_child_nodes(node)
    return found


def files(part: str) -> list[Path]:
    return sorted((PACKAGE / part).rglob('*.py')) or [PACKAGE / f'{part}.py']


def parts() -> set[str]:
    return {path.stem for path in PACKAGE.iterdir() if path.suffix == '.py' or (path / '__init__.py').exists()} - {
        '__init__'}


@pytest.mark.parametrize('part', CHAIN)
def test_parts_import_only_to_their_left(part):
    allowed = {part, *CHAIN[:CHAIN.index(part)]}
    for path in files(part):
        used = {name.split('.')[1] for name in imports(path) if name.startswith('mmmamba.')}
        assert not used & parts() - allowed, f'{path.relative_to(ROOT)} imports mmmamba.{sorted(used - allowed)[0]}'


def test_the_chain_has_every_part():
    assert parts() == set(CHAIN)


def test_no_circle_of_imports():
    modules = {'.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
               for path in PACKAGE.rglob('*.py')}
    graph = {}
    for module, path in modules.items():
        names = imports(path, functions=False)
        inside = {name.rpartition('.')[0] for name in names - modules.keys()}
        # A package of which modules alone are imported is no module that has to be complete.
        modules_alone = {name.rpartition('.')[0] for name in names & modules.keys()} - inside
        graph[module] = names & modules.keys() - modules_alone - {module, 'mmmamba'}
    TopologicalSorter(graph).prepare()  # which raises CycleError


@pytest.mark.parametrize('part', sorted(PURE))
def test_what_needs_torch_alone_imports_torch_alone(part):
    for path in files(part):
        roots = {name.split('.')[0] for name in imports(path)}
        assert not roots & OPENMMLAB, f'{path.relative_to(ROOT)} imports {sorted(roots & OPENMMLAB)[0]}'
        # A kernel needs Triton where it is defined; scan.py imports these files in its functions alone, seen below.
        if part == 'ops' and path.parent.name == 'triton' and path.name.startswith('kernels_'):
            continue
        at_import = imports(path, functions=False)
        assert not any(name.startswith('mmmamba.ops.triton.kernels_') for name in at_import), f'{path}: not lazily'
        assert 'triton' not in {name.split('.')[0] for name in at_import}, f'{path}: not lazily'


def test_nothing_in_the_package_imports_tools_or_what_tests_are_made_with():
    for path in PACKAGE.rglob('*.py'):
        used = {name.split('.')[0] for name in imports(path)}
        assert not used & {'tools', 'configs', 'benchmarks', 'tests', 'unittest', 'pytest'}, path


def test_the_law_is_seen_broken(tmp_path, monkeypatch):
    """The checks above find a forbidden import however it is written."""
    monkeypatch.setitem(globals(), 'ROOT', tmp_path)
    module = tmp_path / 'mmmamba' / 'ops' / 'module.py'
    module.parent.mkdir(parents=True)
    for line in ('import mmmamba.layers.ss2d', 'from mmmamba.layers import SS2D', 'from mmmamba import layers',
                 'from ..layers import ss2d', 'def f():\n    from mmmamba.layers import SS2D'):
        module.write_text(line)
        assert 'layers' in {name.split('.')[1] for name in imports(module) if name.startswith('mmmamba.')}, line
