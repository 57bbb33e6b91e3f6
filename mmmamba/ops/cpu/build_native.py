"""Builds the libraries of the native kernels at install time, or records why they could not be built.

setup.py loads this file by its path, before anything is installed: it imports nothing but setuptools.

The compiler decides what is built, so that ``CC=aarch64-linux-gnu-gcc`` is all that another machine's libraries need.
"""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

BUILD_LOG = 'build_log.txt'
FOLDER = 'mmmamba/ops/cpu'
DEPLOY = 'mmmamba/deploy/native'
FLAGS = ['-std=gnu11', '-O3', '-g0', '-fPIC', '-fvisibility=hidden', '-fno-math-errno', '-fno-trapping-math',
         '-pthread', '-Wno-unknown-pragmas']
ISA_FLAGS = {
    'portable': [],
    'avx2': ['-mavx2', '-mfma', '-DSCAN_USE_AVX2'],
    'avx512': ['-mavx512f', '-mavx512dq', '-mfma', '-DSCAN_USE_AVX512'],
    'avx512_bf16': ['-mavx512f', '-mavx512dq', '-mfma', '-DSCAN_USE_AVX512', '-DSCAN_USE_AVX512_BF16'],
}
BUILD_ERRORS = (BaseError, CCompilerError, OSError)


def instruction_sets(compiler: list[str]) -> tuple[str, ...]:
    """Returns what the target of a compiler has, worst first; the target need not be this machine."""
    try:
        target = subprocess.run([*compiler, '-dumpmachine'], capture_output=True, text=True).stdout
    except OSError:  # which the compilation reports
        target = ''
    return tuple(ISA_FLAGS) if target.startswith(('x86_64', 'amd64')) else ('portable',)


class NativeLibrary(Extension):
    """A library of which some sources are compiled once and others for each instruction set."""

    def __init__(self, name: str, entries: list[str], kernels: list[str], headers: list[str],
                 openmp: bool) -> None:
        self.entries = entries
        self.kernels = [f'{FOLDER}/{kernel}.c' for kernel in kernels]
        self.openmp = openmp
        super().__init__(name, [*self.entries, *self.kernels], depends=headers, include_dirs=[FOLDER], optional=True)


NATIVE_EXTENSION = NativeLibrary(
    'mmmamba.ops.cpu.libscan',
    entries=[f'{FOLDER}/{name}.c' for name in ('scan', 'blocks')],
    kernels=['kernel', 'pointwise', 'inverted_bottleneck', 'norm_gate', 'gated_depthwise'],
    headers=[f'{FOLDER}/{name}.h' for name in ('scan', 'blocks', 'vector', 'activation', 'norm', 'matmul', 'stencil')],
    openmp=True,
)
# Runs on the threads of ONNX Runtime, and exports nothing of the scan itself.
ONNXRUNTIME_EXTENSION = NativeLibrary(
    'mmmamba.deploy.native.libmmmamba_onnxruntime',
    entries=[f'{FOLDER}/scan.c', *(f'{DEPLOY}/{name}.c' for name in ('scan_op', 'onnxruntime_op'))],
    kernels=['kernel'],
    headers=[*(f'{FOLDER}/{name}.h' for name in ('scan', 'vector')),
             *(f'{DEPLOY}/{name}.h' for name in ('scan_op', 'onnxruntime_api'))],
    openmp=False,
)


class BuildNative(build_ext):
    """Compiles the kernels once for each instruction set; without OpenMP or a vector unit if the compiler lacks them.

    An installation never fails here. The reason of a failure is left next to the missing library; of libscan's,
    ``python -m mmmamba.ops.info`` tells it.
    """

    def run(self) -> None:
        self.failures: dict[str, str | None] = {}
        self.kernel_objects: dict[tuple[str, str], list[str]] = {}
        try:
            super().run()
        except BUILD_ERRORS as error:  # not even a compiler that setuptools knows
            for ext in self.extensions:
                self._record_failure(ext, error)

    def get_ext_filename(self, fullname: str) -> str:
        """Returns a library's path: it is found there and loaded as it is, so no suffix of a Python version."""
        return str(Path(*fullname.split('.')).with_suffix('.so'))

    def build_extension(self, ext: NativeLibrary) -> None:
        first_error = None
        known = instruction_sets(getattr(self.compiler, 'compiler_so', []))  # which Microsoft's does not have
        for isas in dict.fromkeys((known, ('portable',))):
            for openmp in (['-fopenmp'], []) if ext.openmp else ([],):
                try:
                    self._compile(ext, isas, openmp)
                except BUILD_ERRORS as error:
                    first_error = first_error or error
                else:
                    return self._record(ext, None)
        self._record_failure(ext, first_error)

    def copy_extensions_to_source(self) -> None:
        """Takes the libraries, or the reasons for their absence, to the source tree of an editable installation."""
        super().copy_extensions_to_source()
        for ext in self.extensions:
            self._record(ext, self.failures.get(ext.name))

    def _compile(self, ext: NativeLibrary, isas: tuple[str, ...], openmp: list[str]) -> None:
        macros: list[tuple[str, str | None]] = [('SCAN_WITH_X86', None)] if len(isas) > 1 else []
        if ext is not NATIVE_EXTENSION:
            macros.append(('SCAN_EXPORT', ''))
        objects = self.compiler.compile(ext.entries, str(Path(self.build_temp, ext.name)), macros, ext.include_dirs,
                                        extra_postargs=[*FLAGS, *openmp])
        for isa in isas:
            for kernel in ext.kernels:
                if (kernel, isa) not in self.kernel_objects:
                    self.kernel_objects[kernel, isa] = self.compiler.compile(
                        [kernel], str(Path(self.build_temp, isa)), [('SCAN_ISA', isa)],
                        extra_postargs=FLAGS + ISA_FLAGS[isa])
                objects += self.kernel_objects[kernel, isa]
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(ext.name), extra_postargs=[*_runtime(objects, openmp), '-pthread'])

    def _record_failure(self, ext: NativeLibrary, error: Exception | None) -> None:
        # A compiler's whole command line would bury the name of the compiler and how it ended.
        failure = re.sub(r", '-.*'\]", ', ...]', ' '.join(str(error).split()))
        self.warn(f'{Path(self.get_ext_filename(ext.name)).name} is left out: {failure}')
        self._record(ext, failure)

    def _record(self, ext: NativeLibrary, failure: str | None) -> None:
        self.failures[ext.name] = failure
        log = Path(self.get_ext_fullpath(ext.name)).with_name(BUILD_LOG)
        if failure is None:
            log.unlink(missing_ok=True)
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(failure + '\n', encoding='utf-8')


def _runtime(objects: list[str], openmp: list[str]) -> list[str]:
    """Returns how the linker is told of an OpenMP runtime.

    What GCC calls is left open: PyTorch's runtime, whose file has another name in every build of PyTorch, has it
    (native.py). A second one, that of the compiler, would start threads of its own beside PyTorch's.
    """
    called = any(b'GOMP_' in Path(name).read_bytes() for name in objects) and sys.platform == 'linux'
    return [] if called else openmp
