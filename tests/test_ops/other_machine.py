"""The native library of another machine, in an emulator: its functions, called as those of a library of this machine.

Only the kernels run there (``other_machine.c``); Python and PyTorch stay here. With every call go the structures and
the tensors that these point to, and the tensors come back with what the kernel wrote.
"""
from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from ctypes import addressof, memmove, sizeof, string_at
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from mmmamba.ops.cpu import blocks, native, passes, scan

HEADER = '<64s4q'


class OtherMachine:
    """What ``native.NATIVE.library`` is.

    Attributes:
        command: Starts ``other_machine.c`` with the library, in the emulator.
        calls: Names of the functions that were called.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.calls: list[str] = []
        self._sizes: dict[int, int] = {}  # bytes of tensors by their addresses

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lets the package use this library, with the instruction set that every machine has."""
        for module in (blocks, passes, scan):
            monkeypatch.setattr(module, 'addresses', self._addresses)
        monkeypatch.setattr(blocks, 'REASON', None)
        monkeypatch.setattr(native, 'NATIVE', native.Native(self, None, ('portable',), openmp=True))

    def scan_lanes(self, isa: int) -> int:
        """Returns what the kernels of vectors of 128 bits do."""
        return 4

    def __getattr__(self, name: str) -> Any:
        return partial(self._call, name)

    def _addresses(self, tensors: Sequence[Tensor | None], *arguments: Any) -> list[int | None]:
        tensors = list(tensors)
        found = native.addresses(tensors, *arguments)
        self._sizes.update((address, tensor.numel() * tensor.element_size())
                           for address, tensor in zip(found, tensors) if address)
        return found

    def _call(self, name: str, *arguments: Any) -> int:
        """Runs a function, whose last two arguments are the instruction set and the threads, the others structures."""
        self.calls.append(name)
        structures = [argument._obj for argument in arguments[:-2]]
        isa, threads = arguments[-2:] or (0, 0)
        holding = [(addressof(structure), sizeof(structure)) for structure in structures]
        plain = {}
        for structure in structures:
            if isinstance(structure, scan.Problem):
                holding.append((structure.orders, structure.directions * sizeof(scan.Order)))
                orders = (scan.Order * structure.directions).from_address(structure.orders)
                plain.update((order.pixels, 4 * order.steps) for order in orders)
        for address, size in holding:
            for word in struct.unpack(f'<{size // 8}q', string_at(address, size)):
                if word in self._sizes:
                    plain[word] = self._sizes[word]
        request = [struct.pack(HEADER, name.encode(), len(structures), isa, threads, len(holding) + len(plain))]
        for holds, regions in ((1, holding), (0, plain.items())):
            for address, size in regions:
                request += [struct.pack('<3q', address, size, holds), string_at(address, size)]
        done = subprocess.run(self.command, input=b''.join(request), capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        result, at = struct.unpack_from('<q', done.stdout)[0], 8
        for address, size in plain.items():
            memmove(address, done.stdout[at:at + size], size)
            at += size
        assert at == len(done.stdout)
        return result


def compile_for(compiler: str, flags: Sequence[str], sources: Sequence[Path], to: Path) -> Path:
    """Compiles C to a program, or to a library with ``-shared`` among the flags."""
    subprocess.run([compiler, *flags, *map(str, sources), '-o', str(to)], check=True, capture_output=True)
    return to
