"""Builds the native kernel at install time, or records why it could not be built.

setup.py loads this file by its path, before anything is installed: it imports nothing but setuptools.
"""
from __future__ import annotations

import platform
import re
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

LIBRARY = 'libscan.so'  # found by its path and loaded with ctypes, so no suffix of a Python version
BUILD_LOG = 'build_log.txt'
FOLDER = 'mmmamba/ops/cpu'
FLAGS = ['-std=gnu11', '-O3', '-g0', '-fPIC', '-fvisibility=hidden', '-fno-math-errno', '-fno-trapping-math']
ISA_FLAGS = {
    'portable': [],
    'avx2': ['-mavx2', '-mfma', '-DSCAN_USE_AVX2'],
    'avx512': ['-mavx512f', '-mavx512dq', '-mfma', '-DSCAN_USE_AVX512'],
}
BUILD_ERRORS = (BaseError, CCompilerError, OSError)

ENTRIES = [f'{FOLDER}/{name}.c' for name in ('scan', 'blocks')]  # compiled once
KERNELS = [f'{FOLDER}/{name}.c' for name in ('kernel', 'pointwise', 'inverted_bottleneck')]  # for each instruction set

NATIVE_EXTENSION = Extension(
    'mmmamba.ops.cpu.libscan',
    sources=[*ENTRIES, *KERNELS],
    depends=[f'{FOLDER}/{name}.h' for name in ('scan', 'blocks', 'vector', 'activation', 'matmul', 'stencil')],
    optional=True,
)


class BuildNative(build_ext):
    """Compiles the kernels once for each instruction set; without OpenMP or a vector unit if the compiler lacks them.

    An installation never fails here. The reason of a failure is left next to the missing library, where
    ``python -m mmmamba.ops.info`` reads it.
    """

    failure: str | None = None

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split('.')).with_name(LIBRARY))

    def run(self) -> None:
        try:
            super().run()
        except BUILD_ERRORS as error:  # not even a compiler that setuptools knows
            self._record_failure(error)

    def build_extension(self, ext: Extension) -> None:
        x86 = platform.machine().lower() in ('x86_64', 'amd64')
        isa_sets = [tuple(ISA_FLAGS), ('portable',)] if x86 else [('portable',)]
        first_error = None
        for isas in isa_sets:
            for openmp in (['-fopenmp'], []):
                try:
                    self._compile(ext, isas, openmp)
                except BUILD_ERRORS as error:
                    first_error = first_error or error
                else:
                    return self._record(None)
        self._record_failure(first_error)

    def copy_extensions_to_source(self) -> None:
        """Takes the library, or the reason for its absence, to the source tree of an editable installation."""
        super().copy_extensions_to_source()
        self._record(self.failure)

    def _compile(self, ext: Extension, isas: tuple[str, ...], openmp: list[str]) -> None:
        macros = [('SCAN_WITH_X86', None)] if len(isas) > 1 else []
        temp = Path(self.build_temp)
        objects = self.compiler.compile(ENTRIES, str(temp), macros, extra_postargs=FLAGS + openmp)
        for isa in isas:
            flags = FLAGS + ISA_FLAGS[isa]
            objects += self.compiler.compile(KERNELS, str(temp / isa), [('SCAN_ISA', isa)], extra_postargs=flags)
        self.compiler.link_shared_object(objects, self.get_ext_fullpath(ext.name), extra_postargs=openmp)

    def _record_failure(self, error: Exception | None) -> None:
        # A compiler's whole command line would bury the name of the compiler and how it ended.
        self.failure = re.sub(r", '-.*'\]", ', ...]', ' '.join(str(error).split()))
        self.warn(f'the native scan kernel is left out: {self.failure}')
        self._record(self.failure)

    def _record(self, failure: str | None) -> None:
        log = Path(self.get_ext_fullpath(NATIVE_EXTENSION.name)).with_name(BUILD_LOG)
        if failure is None:
            log.unlink(missing_ok=True)
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(failure + '\n', encoding='utf-8')
