"""What a wheel and an editable install contain."""
from __future__ import annotations

import os
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


def _copy_repository(to: Path) -> Path:
    for name in _sources():
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name).read_bytes())
    return to


def _pip(*arguments: object) -> None:
    command = [sys.executable, '-m', 'pip', *map(str, arguments)]
    offline = ['--no-index', '--no-build-isolation', '--no-deps', '--quiet']
    result = subprocess.run([*command, *offline], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that is built, without network, from a clean copy of the repository."""
    source, out = _copy_repository(tmp_path_factory.mktemp('source')), tmp_path_factory.mktemp('wheel')
    _pip('wheel', '--wheel-dir', out, source)
    return next(out.glob('mmmamba-*.whl'))


@pytest.fixture(scope='module')
def wheel_names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope='module')
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel for platforms that have none of their own."""
    source, out = _copy_repository(tmp_path_factory.mktemp('source')), tmp_path_factory.mktemp('wheel')
    subprocess.run([sys.executable, 'setup.py', '-q', 'bdist_wheel', '--plat-name', 'any', '--dist-dir', str(out)],
                   cwd=source, check=True, capture_output=True)
    return next(out.glob('mmmamba-*.whl'))


@pytest.fixture(scope='module')
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A clone named like the package, and the site folder of its editable install."""
    folder = tmp_path_factory.mktemp('editable')
    clone, site = _copy_repository(folder / 'projects' / 'mmmamba'), folder / 'site'
    _pip('install', '--editable', clone, '--target', site)
    return clone, site


def test_wheel_holds_the_package_with_its_c_sources(wheel_names: set[str]) -> None:
    assert 'mmmamba/__init__.py' in wheel_names
    assert _sources('mmmamba/*.py', 'mmmamba/*.c', 'mmmamba/*.cpp', 'mmmamba/*.h',
                    'mmmamba/deploy/export/page/*') <= wheel_names


def test_wheel_holds_configs_and_tools_where_mim_looks(wheel_names: set[str]) -> None:
    wanted = _sources('configs/*.py', 'configs/*.yml', 'tools/*.py', 'tools/*.sh', 'model-index.yml')
    assert 'model-index.yml' in wanted
    assert {f'mmmamba/.mim/{name}' for name in wanted} <= wheel_names


def test_wheel_holds_nothing_else(wheel_names: set[str]) -> None:
    folders = {name.split('/')[0] for name in wheel_names}
    assert {folder for folder in folders if not folder.endswith('.dist-info')} == {'mmmamba'}
    assert not [name for name in wheel_names if '__pycache__' in name]


def test_wheels_are_for_any_python(wheel: Path, pure_wheel: Path) -> None:
    assert re.search(r'-py3-none-(?!any)\w+\.whl$', wheel.name)
    assert pure_wheel.name.endswith('-py3-none-any.whl')


def test_the_wheel_for_any_platform_lacks_the_libraries_alone(wheel_names: set[str], pure_wheel: Path) -> None:
    names = set(zipfile.ZipFile(pure_wheel).namelist())
    built = {name for name in wheel_names if name.endswith(('.so', 'build_log.txt'))}
    assert not {name for name in names if name.endswith('.so')}
    assert names == wheel_names - built


def test_what_pip_is_asked_for(wheel: Path) -> None:
    """Bare, nothing that another distribution of the same modules could provide; with the extras, one set of them."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        lines = re.findall(r'^Requires-Dist: ([\w-]+).*?(?:extra == .(\w+).)?$', archive.read(metadata).decode(), re.M)
    asked: dict[str, set[str]] = {}
    for name, extra in lines:
        asked.setdefault(extra, set()).add(name)
    assert asked[''] == {'torch', 'numpy', 'pycocotools', 'tqdm'}
    assert asked['mmdet'] == {'mmdet', 'mmengine'}
    assert asked['lite'] == {'mmdet', 'mmengine', 'mmcv-lite'}
    assert asked['onedl'] == {'onedl-mmdetection', 'onedl-mmengine', 'onedl-mmcv'}


def test_editable_install_links_to_the_repository() -> None:
    mim = ROOT / 'mmmamba' / '.mim'
    if not mim.exists():
        pytest.skip('needs an editable install')
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (mim / name).resolve() == ROOT / name


@pytest.mark.parametrize('where', ['projects', 'projects/mmmamba', '.'])
@pytest.mark.parametrize('start', [['-c', '{code}'], ['-m', 'started'], ['started.py']])
def test_editable_install_wins_wherever_python_is_started(clone: tuple[Path, Path], where: str,
                                                          start: list[str]) -> None:
    repository, site = clone
    # The environment's own install is left out (-S), and the .pth file read as that of its site folder is.
    code = (f'import site; site.addsitedir({str(site)!r}); '
            'from importlib.util import find_spec; print(find_spec("mmmamba").origin)')
    folder = repository.parents[1] / where
    (folder / 'started.py').write_text(code)
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    result = subprocess.run([sys.executable, '-S', *(part.format(code=code) for part in start)], cwd=folder,
                            env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(repository / 'mmmamba' / '__init__.py')


def test_editable_install_has_mims_links_and_the_native_build(clone: tuple[Path, Path]) -> None:
    package = clone[0] / 'mmmamba'
    assert (package / '.mim' / 'configs').resolve() == clone[0] / 'configs'
    for library in ('ops/cpu/libscan.so', 'deploy/native/libmmmamba_onnxruntime.so'):
        assert (package / library).is_file() or (package / library).with_name('build_log.txt').is_file()


def test_requirements_are_pinned_and_name_neither_mmcv() -> None:
    def names(path: str) -> set[str]:
        lines = (ROOT / 'requirements' / path).read_text(encoding='utf-8').splitlines()
        specs = [line for line in lines if line and not line.startswith('#')]
        return {re.match(r'[\w.-]+', spec).group().lower() for spec in specs}

    asked = set().union(*(names(f'{part}.txt') for part in ('runtime', 'mmdet', 'demo', 'tests', 'docs')))
    assert not {name for name in asked if name.startswith('mmcv')}
    assert asked <= names('constraints.txt')


def test_pre_commit_has_the_pinned_versions() -> None:
    pins = (ROOT / 'requirements' / 'constraints.txt').read_text(encoding='utf-8').splitlines()
    versions = dict(pin.split('==') for pin in pins if '==' in pin)
    config = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text(encoding='utf-8'))
    asked = [spec.split('==') for repository in config['repos'] for hook in repository['hooks']
             for spec in hook.get('additional_dependencies', [])]
    assert 'ruff' in dict(asked)
    assert {name: versions.get(name, version) for name, version in asked} == dict(asked)


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
