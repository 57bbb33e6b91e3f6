"""Finds the native library and says what it can do; where tensors are in memory."""
from __future__ import annotations

import ctypes
from collections.abc import Iterable
from contextlib import suppress
from ctypes import RTLD_GLOBAL, Structure, byref, c_char_p, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

LIBRARY = Path(__file__).with_name('libscan.so')
BUILD_LOG = Path(__file__).with_name('build_log.txt')
ABI = 5
ISAS = ('portable', 'avx2', 'avx512', 'avx512_bf16')  # worst first, as in scan.h
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # as in scan.h


@dataclass(frozen=True)
class Native:
    """The loaded library with its instruction sets on this machine, worst first, or the reason why there is none."""

    library: ctypes.CDLL | None
    reason: str | None = None
    isas: tuple[str, ...] = ()
    openmp: bool = False


class Symbol(Structure):
    """Dl_info of the C library: where a function is."""

    _fields_ = [('file', c_char_p), ('base', c_void_p), ('name', c_char_p), ('address', c_void_p)]


def share_openmp() -> None:
    """Lets libraries that are loaded from now on use PyTorch's OpenMP runtime, or the system's if PyTorch has none.

    Ours names no runtime, since PyTorch's has another name in every build: ``libgomp.so.1``, ``libiomp5.so``,
    ``libgomp-a34b3233.so.1``. With a name it would bring a second one, whose threads compete with PyTorch's.
    """
    runtime, symbol = 'libgomp.so.1', Symbol()
    with suppress(AttributeError):  # no such function in PyTorch or in what it is linked with
        function = ctypes.cast(ctypes.CDLL(torch._C.__file__).GOMP_parallel, c_void_p)
        if ctypes.CDLL(None).dladdr(function, byref(symbol)):
            runtime = symbol.file.decode()
    ctypes.CDLL(runtime, mode=RTLD_GLOBAL)


def load() -> Native:
    """Loads the library, which shares PyTorch's OpenMP runtime and its threads."""
    if not LIBRARY.exists():
        log = BUILD_LOG.read_text(encoding='utf-8').strip() if BUILD_LOG.exists() else 'it is left out here'
        return Native(None, f'The native library was not built: {log}.')
    try:
        with suppress(OSError):  # a library without OpenMP needs no runtime
            share_openmp()
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        return Native(None, f'The native library cannot be loaded: {error}.')
    library.scan_abi.restype = c_int64
    if library.scan_abi() != ABI:  # another version may lack the functions below
        return Native(None, 'The native library belongs to another version of mmmamba; install again to rebuild it.')
    for name in ('scan_has_threads', 'scan_has_isa', 'scan_lanes', 'scan_forward', 'scan_backward'):
        getattr(library, name).restype = c_int64
    library.scan_has_isa.argtypes = library.scan_lanes.argtypes = [c_int64]
    library.scan_forward.argtypes = library.scan_backward.argtypes = [c_void_p, c_void_p, c_int64, c_int64]
    isas = tuple(isa for i, isa in enumerate(ISAS) if library.scan_has_isa(i))
    return Native(library, None, isas, bool(library.scan_has_threads()))


NATIVE = load()  # at import, because torch.compile traces `unavailable` and cannot load libraries


def unavailable() -> str | None:
    """Returns why the native kernel cannot run here, or None if it can."""
    return NATIVE.reason


def available_isas() -> tuple[str, ...]:
    """Returns the instruction sets that this library and this machine have, worst first."""
    return NATIVE.isas


def threads() -> int:
    """Returns how many threads the kernels run on."""
    return torch.get_num_threads() if NATIVE.openmp else 1


def isa_index(isa: str | None) -> int:
    """Returns what the library calls an instruction set; None for the best one.

    Raises:
        ValueError: This machine or library lacks it.
    """
    available = available_isas()
    if isa is not None and isa not in available:
        raise ValueError(f'This machine or library lacks {isa!r}; it has {", ".join(available)}.')
    return ISAS.index(available[-1] if isa is None else isa)


def addresses(
    tensors: Iterable[Tensor | None],
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> list[int | None]:
    """Returns where dense tensors begin; None for None.

    Raises:
        ValueError: A tensor is not what the kernels would take it for. A registered operator can be called with any.
    """
    found: list[int | None] = []
    for tensor in tensors:
        if tensor is None:
            found.append(None)
            continue
        dense = tensor.is_contiguous(memory_format=memory_format)
        if not dense or tensor.dtype != dtype or tensor.device.type != 'cpu':
            raise ValueError(
                f'The native kernels need a {dtype} tensor on the CPU, dense in {memory_format}, '
                f'not {tensor.dtype} on {tensor.device} with strides {tensor.stride()}.'
            )
        found.append(tensor.data_ptr())
    return found
