"""``python -m mmmamba.deploy.native.build``: compiles the library for OpenVINO into this folder.

An installation leaves it out, because it needs OpenVINO's headers and works with the release alone that they are of.
"""
from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from mmmamba.deploy.native.libraries import FOLDER, OPENVINO, OPENVINO_VERSION
from mmmamba.errors import InputError
from mmmamba.ops.cpu.build_native import FLAGS, ISA_FLAGS, instruction_sets

SCAN = FOLDER.parents[1] / 'ops' / 'cpu'
# OpenVINO's messages name the source file: not by where it was compiled.
CPP_FLAGS = ['-std=c++17', '-O2', '-fPIC', '-fvisibility=hidden', f'-fmacro-prefix-map={FOLDER}/=']
# OpenVINO closes an extension with the last model that it knows to have its operators; whatever else still points into
# the library would crash the process, so it stays until the end.
KEPT = ('-Wl,-z,nodelete',)
LINKED = ('libopenvino.so*', 'libopenvino_onnx_frontend.so*', 'libtbb.so*')


def build() -> Path:
    """Compiles the library and returns its path.

    Raises:
        InputError: OpenVINO or a compiler is missing, the compiler fails, or the folder cannot be written to.
    """
    spec = find_spec('openvino')
    if spec is None or spec.origin is None:
        raise InputError('OpenVINO is not installed; pip install openvino brings the headers that the library needs.')
    package = Path(spec.origin).parent
    found = [sorted((package / 'libs').glob(name)) for name in LINKED]
    if not all(found) or not (package / 'include').is_dir():
        raise InputError(f'The OpenVINO in {package} has no headers or libraries to build with; pip installs one.')
    try:
        with TemporaryDirectory(dir=FOLDER) as folder:
            made = _compile(Path(folder), package, [str(paths[0]) for paths in found])
            # Written last: without it a library counts as not built, so that it never has another one's version.
            (FOLDER / OPENVINO_VERSION).unlink(missing_ok=True)
            made.replace(FOLDER / OPENVINO)
            (FOLDER / OPENVINO_VERSION).write_text(version('openvino') + '\n', encoding='utf-8')
    except OSError as error:
        raise InputError(f'The library cannot be written to {FOLDER}: {error.strerror}.') from error
    return FOLDER / OPENVINO


def _compile(folder: Path, package: Path, linked: list[str]) -> Path:
    """Compiles the library for the OpenVINO in ``package`` into a folder and returns its path there."""
    cc, cxx = (shlex.split(os.environ.get(name) or usual) for name, usual in (('CC', 'cc'), ('CXX', 'c++')))
    isas = instruction_sets(cc)
    macros = ['-DSCAN_EXPORT=', *(['-DSCAN_WITH_X86'] if len(isas) > 1 else []), f'-I{SCAN}']
    objects = []

    def compile_to(name: str, compiler: list[str], source: Path, flags: list[str]) -> None:
        objects.append(str(folder / name))
        _run([*compiler, *flags, '-c', str(source), '-o', objects[-1]])

    for source in (FOLDER / 'scan_op.c', SCAN / 'scan.c'):
        compile_to(f'{source.stem}.o', cc, source, FLAGS + macros)
    compile_to('openvino_op.o', cxx, FOLDER / 'openvino_op.cpp',
               [*CPP_FLAGS, *macros, '-isystem', str(package / 'include')])
    for isa in isas:
        compile_to(f'kernel_{isa}.o', cc, SCAN / 'kernel.c', [*FLAGS, *ISA_FLAGS[isa], f'-DSCAN_ISA={isa}'])
    library = folder / OPENVINO
    _run([*cxx, '-shared', '-o', str(library), *objects, *linked, f'-Wl,-rpath,{package / "libs"}', *KEPT, '-pthread'])
    return library


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise InputError(f'The compiler {command[0]!r} cannot run: {error.strerror}; name one in CC or CXX.'
                         ) from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if 'error' in line] or done.stderr.splitlines() or ['']
        raise InputError(f'The compiler {command[0]!r} failed: {errors[0] or f"status {done.returncode}"}.')


if __name__ == '__main__':
    try:
        print(build())
    except InputError as error:
        sys.exit(f'error: {error}')
