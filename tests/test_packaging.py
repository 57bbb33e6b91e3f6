"""What a wheel and an editable install contain."""
from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def _sources(*patterns: str) -> set[str]:
    """The repository's own files, ignored ones left out."""
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard', *patterns]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        pytest.skip('needs a git checkout')
    return {name for name in result.stdout.splitlines() if (ROOT / name).is_file()}


@pytest.fixture(scope='module')
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel that is built, without network, from a clean copy of the repository."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    for name in _sources():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-index', '--no-build-isolation', '--no-deps', '--quiet',
               '--wheel-dir', str(out), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(zipfile.ZipFile(next(out.glob('mmmamba-*.whl'))).namelist())


def test_wheel_holds_the_package_with_its_c_sources(wheel_names: set[str]) -> None:
    assert 'mmmamba/__init__.py' in wheel_names
    assert _sources('mmmamba/*.py', 'mmmamba/*.c', 'mmmamba/*.h') <= wheel_names


def test_wheel_holds_configs_and_tools_where_mim_looks(wheel_names: set[str]) -> None:
    wanted = _sources('configs/*.py', 'configs/*.yml', 'tools/*.py', 'tools/*.sh', 'model-index.yml')
    assert 'model-index.yml' in wanted
    assert {f'mmmamba/.mim/{name}' for name in wanted} <= wheel_names


def test_wheel_holds_nothing_else(wheel_names: set[str]) -> None:
    folders = {name.split('/')[0] for name in wheel_names}
    assert {folder for folder in folders if not folder.endswith('.dist-info')} == {'mmmamba'}
    assert not [name for name in wheel_names if '__pycache__' in name]


def test_editable_install_links_to_the_repository() -> None:
    mim = ROOT / 'mmmamba' / '.mim'
    if not mim.exists():
        pytest.skip('needs an editable install')
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (mim / name).resolve() == ROOT / name


def test_requirements_are_pinned_and_name_neither_mmcv() -> None:
    def names(path: str) -> set[str]:
        lines = (ROOT / 'requirements' / path).read_text(encoding='utf-8').splitlines()
        specs = [line for line in lines if line and not line.startswith('#')]
        return {re.match(r'[\w.-]+', spec).group().lower() for spec in specs}

    asked = names('runtime.txt') | names('demo.txt') | names('tests.txt')
    assert not {name for name in asked if name.startswith('mmcv')}
    assert asked <= names('constraints.txt')


def test_model_index_lists_every_coco_config() -> None:
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text(encoding='utf-8'))
    listed = set()
    for metafile in index['Import']:
        content = yaml.safe_load((ROOT / metafile).read_text(encoding='utf-8'))
        collections = {collection['Name'] for collection in content['Collections']}
        for model in content['Models']:
            assert model['In Collection'] in collections
            assert Path(model['Config']).stem == model['Name']
            listed.add(model['Config'])
    assert listed == {str(path.relative_to(ROOT)) for path in ROOT.glob('configs/[!_]*/**/*_coco.py')}
