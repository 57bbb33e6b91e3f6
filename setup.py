"""Packaging: metadata, the optional native libraries, wheels, and MIM's layout.

Neither mmdet nor mmcv is among the requirements: several distributions provide each, and pip would put a second one
over the first. Choose with an extra: ``mmmamba[lite]`` is mmdet with mmcv-lite (pure Python, enough together with
``mmmamba.compat``), ``mmmamba[mmdet]`` is for those who have full mmcv, ``mmmamba[onedl]`` takes OneDL's forks.

A wheel's native libraries know nothing of Python, so it is tagged by its platform alone. ``--plat-name any`` makes one
without them; another machine's is made with ``CC=aarch64-linux-gnu-gcc`` (see ``make wheels``).
"""
from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
NATIVE = runpy.run_path(str(ROOT / 'mmmamba' / 'ops' / 'cpu' / 'build_native.py'))
MIM_CONTENT = ('configs', 'tools', 'model-index.yml')


class BuildPyWithMim(build_py):
    """Adds ``mmmamba/.mim``, where ``mim train mmmamba ...`` looks for tools, configs and the model index.

    An editable install gets links, so that edits are seen at once; a wheel gets copies.
    """

    def run(self) -> None:
        super().run()
        for source, target in self._mim_pairs():
            if target.is_symlink() or target.is_file():
                target.unlink()
            elif target.exists():
                shutil.rmtree(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            if self.editable_mode:
                try:
                    target.symlink_to(Path('..', '..', source.name))
                    continue
                except OSError:  # Windows without the right to make links: the copy below serves
                    pass
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy2(source, target)

    def _mim_pairs(self) -> list[tuple[Path, Path]]:
        base = ROOT if self.editable_mode else Path(self.build_lib)
        return [(ROOT / name, base / 'mmmamba' / '.mim' / name) for name in MIM_CONTENT]


class BdistWheelOfPlatform(bdist_wheel):
    """Makes a wheel for any Python on a platform; for any platform, one without the native libraries."""

    def finalize_options(self) -> None:
        if self.plat_name == 'any':
            self.distribution.ext_modules = []
        super().finalize_options()

    def get_tag(self) -> tuple[str, str, str]:
        return 'py3', 'none', super().get_tag()[2]


def requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def version() -> str:
    return re.search(r"'(.+)'", (ROOT / 'mmmamba' / 'version.py').read_text(encoding='utf-8')).group(1)


readme = ROOT / 'README.md'
setup(
    name='mmmamba',
    version=version(),
    description='Mamba YOLO and other state-space detectors for MMDetection',
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='object detection, Mamba, state space models, MMDetection, PyTorch',
    packages=find_packages(include=['mmmamba', 'mmmamba.*']),
    # Named though it is the default: only then does setuptools put the repository's path on sys.path in an editable
    # install. Its other way, an import finder, comes after the folders of sys.path: with a clone named mmmamba in the
    # current folder, the clone would be taken for an (empty) namespace package.
    package_dir={'': '.'},
    # MANIFEST.in does not reach below `package_dir`.
    package_data={'mmmamba': ['**/*.c', '**/*.cpp', '**/*.h', '**/*.md', 'deploy/export/page/*']},
    python_requires='>=3.9',
    install_requires=requirements('runtime'),
    extras_require={
        'lite': [*requirements('mmdet'), 'mmcv-lite>=2.0.0,<2.2.0'],
        'mmdet': requirements('mmdet'),
        'onedl': requirements('onedl'),
        'demo': requirements('demo'),
        'export': requirements('export'),
        'predict': requirements('predict'),
        'int8': [*requirements('export'), *requirements('int8')],
        'tests': requirements('tests'),
    },
    entry_points={'console_scripts': ['mmmamba = mmmamba.__main__:main']},
    ext_modules=[NATIVE['NATIVE_EXTENSION'], NATIVE['ONNXRUNTIME_EXTENSION']],
    cmdclass={'bdist_wheel': BdistWheelOfPlatform, 'build_py': BuildPyWithMim, 'build_ext': NATIVE['BuildNative']},
    zip_safe=False,
)
