"""``make wheels``: builds what a release consists of into ``dist``, all of it from the sdist.

- an sdist,
- a wheel for Linux on x86_64 and one on aarch64, with the native libraries, for any Python 3,
- a wheel for everywhere else without them, where the scans run in PyTorch.

A wheel's manylinux tag is that of the newest symbol of the C library that its libraries call. They may be linked with
the C library alone: an OpenMP runtime of their own would be a second one beside PyTorch's.
"""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / 'dist'
MACHINES = ('x86_64', 'aarch64')
LIBRARIES = ('mmmamba/ops/cpu/libscan.so', 'mmmamba/deploy/native/libmmmamba_onnxruntime.so')
OLDEST = 17
"""Of manylinux_2_17, the oldest tag that there is for both machines."""


def main() -> None:
    compilers = {machine: f'{machine}-linux-gnu-gcc' for machine in MACHINES}
    packages = {compiler: f'gcc-{machine.replace("_", "-")}-linux-gnu' for machine, compiler in compilers.items()}
    missing = [f'{tool} (apt-get install {package})' for tool, package in {**packages, 'readelf': 'binutils'}.items()
               if shutil.which(tool) is None]
    if missing:
        sys.exit(f'error: make wheels needs {", ".join(missing)}')
    for old in (*DIST.glob('*.whl'), *DIST.glob('*.tar.gz')):
        old.unlink()
    with TemporaryDirectory() as folder:
        sdist = _make('sdist', DIST, ROOT)
        for machine, compiler in compilers.items():
            source, made = _unpack(sdist, Path(folder, machine)), Path(folder, machine, 'dist')
            wheel = _make('bdist_wheel', made, source, f'linux_{machine}', compiler)
            tag = f'manylinux_2_{max(OLDEST, _newest_symbol(wheel, made))}_{machine}'
            _run([sys.executable, '-m', 'wheel', 'tags', '--remove', '--platform-tag', tag, str(wheel)], source)
            shutil.move(str(next(made.glob('*.whl'))), DIST)
        _make('bdist_wheel', DIST, _unpack(sdist, Path(folder, 'any')), 'any')
    for path in sorted(DIST.iterdir()):
        print(f'{path.stat().st_size / 2**20:5.1f} MB  {path.relative_to(ROOT)}')


def _make(kind: str, to: Path, source: Path, platform: str | None = None, compiler: str | None = None) -> Path:
    """Makes an sdist or a wheel of a source tree in ``to`` and returns it."""
    command = [sys.executable, 'setup.py', '-q', kind, '--dist-dir', str(to)]
    environment = {name: value for name, value in os.environ.items() if name not in ('CFLAGS', 'LDFLAGS')}
    if platform is not None:
        command += ['--plat-name', platform]
    if compiler is not None:  # this Python's own way to link tells libraries where this Python is
        environment.update(CC=compiler, LDSHARED=f'{compiler} -shared')
    before = set(to.glob('*'))
    _run(command, source, environment)
    return next(path for path in to.glob('*') if path not in before)


def _unpack(sdist: Path, folder: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)
    return folder / sdist.name.removesuffix('.tar.gz')


def _newest_symbol(wheel: Path, folder: Path) -> int:
    """Returns the N of the newest GLIBC_2.N that a wheel's libraries ask for; exits where one of them is wrong."""
    newest = 0
    with zipfile.ZipFile(wheel) as archive:
        for name in LIBRARIES:
            if name not in archive.namelist():
                logs = [archive.read(log).decode() for log in archive.namelist() if log.endswith('build_log.txt')]
                sys.exit(f'error: {wheel.name} has no {name}: {" ".join(logs)}')
            library = archive.extract(name, folder / 'libraries')
            needed = re.findall(r'\(NEEDED\).*\[(.+)\]', _run(['readelf', '-dW', library], folder))
            if set(needed) - {'libc.so.6'}:
                sys.exit(f'error: {name} is linked with {", ".join(needed)} instead of the C library alone')
            symbols = re.findall(r'@GLIBC_2\.(\d+)', _run(['readelf', '--dyn-syms', '-W', library], folder))
            newest = max(newest, *map(int, symbols))
    return newest


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{done.stdout}{done.stderr}error: failed: {" ".join(command)}')
    return done.stdout


if __name__ == '__main__':
    main()
