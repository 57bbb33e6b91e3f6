"""Finds the native library, and calls it with tensors. The structures mirror scan.h."""
from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

LIBRARY = Path(__file__).with_name('libscan.so')
BUILD_LOG = Path(__file__).with_name('build_log.txt')
ABI = 3
ISAS = ('portable', 'avx2', 'avx512')  # worst first, as in scan.h
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # as in scan.h


class Problem(Structure):
    """ScanProblem of scan.h."""

    _fields_ = [
        *((name, c_int64) for name in ('batch', 'groups', 'directions', 'channels', 'states', 'rank')),
        *((name, c_int64) for name in ('pixels', 'tokens', 'chunk')),
        *((name, c_int64) for name in ('softplus', 'overlap', 'x_type', 'delta_type')),
        *((name, c_void_p) for name in ('order', 'x', 'projected', 'delta', 'dt_weight', 'bias', 'A', 'D', 'W')),
    ]


class Outputs(Structure):
    """ScanOutputs of scan.h."""

    _fields_ = [
        *((name, c_void_p) for name in ('y', 'sum', 'last_state', 'chunk_states', 'ends')),
        *((name, c_int64) for name in ('parts', 'segments')),
    ]


class Gradients(Structure):
    """ScanGradients of scan.h."""

    _fields_ = [
        *((name, c_void_p) for name in ('y', 'last_state', 'chunk_states', 'ends')),
        *((name, c_void_p) for name in ('x', 'delta', 'projected', 'dt_weight', 'bias', 'A', 'D', 'W')),
        *((name, c_int64) for name in ('copies', 'segments')),
    ]


@dataclass(frozen=True)
class Native:
    """The loaded library, or the reason why there is none."""

    library: ctypes.CDLL | None
    reason: str | None = None


def load() -> Native:
    """Loads the library. PyTorch is loaded by now, so both share one OpenMP runtime and its threads."""
    if not LIBRARY.exists():
        log = BUILD_LOG.read_text(encoding='utf-8').strip() if BUILD_LOG.exists() else 'it was never built'
        return Native(None, f'The native library was not built: {log}.')
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        return Native(None, f'The native library cannot be loaded: {error}.')
    library.scan_abi.restype = c_int64
    if library.scan_abi() != ABI:  # another version may lack the functions below
        return Native(None, 'The native library belongs to another version of mmmamba; install again to rebuild it.')
    for name in ('scan_has_threads', 'scan_has_isa', 'scan_lanes', 'scan_forward', 'scan_backward'):
        getattr(library, name).restype = c_int64
    library.scan_has_isa.argtypes = library.scan_lanes.argtypes = [c_int64]
    library.scan_forward.argtypes = [POINTER(Problem), POINTER(Outputs), c_int64, c_int64]
    library.scan_backward.argtypes = [POINTER(Problem), POINTER(Gradients), c_int64, c_int64]
    return Native(library)


NATIVE = load()  # at import, because torch.compile traces `unavailable` and cannot load libraries


def unavailable() -> str | None:
    """Returns why the native kernel cannot run here, or None if it can."""
    return NATIVE.reason


def available_isas() -> tuple[str, ...]:
    """Returns the instruction sets that this library and this machine have, worst first."""
    library = NATIVE.library
    return tuple(isa for i, isa in enumerate(ISAS) if library is not None and library.scan_has_isa(i))


def has_threads() -> bool:
    """Returns whether the library was built with OpenMP."""
    library = NATIVE.library
    return library is not None and bool(library.scan_has_threads())


def threads() -> int:
    """Returns how many threads the kernel runs on."""
    return torch.get_num_threads() if has_threads() else 1


def lanes(isa: str | None) -> int:
    """Returns how many channels the best instruction set, or the one named, works on at once."""
    return NATIVE.library.scan_lanes(isa_index(isa))


def address(
    tensor: Tensor | None,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> int | None:
    """Returns where a dense tensor begins; None for None.

    Raises:
        ValueError: The tensor is not what the kernels would take it for. A registered operator can be called with any.
    """
    if tensor is None:
        return None
    if tensor.device.type != 'cpu' or tensor.dtype != dtype or not tensor.is_contiguous(memory_format=memory_format):
        raise ValueError(
            f'The native kernels need a {dtype} tensor on the CPU, dense in {memory_format}, '
            f'not {tensor.dtype} on {tensor.device} with strides {tensor.stride()}.'
        )
    return tensor.data_ptr()


def forward(problem: Problem, outputs: Outputs, isa: str | None) -> None:
    """Runs the forward pass on the best instruction set or on the one named."""
    _check(NATIVE.library.scan_forward(problem, outputs, isa_index(isa), threads()))


def backward(problem: Problem, gradients: Gradients, isa: str | None) -> None:
    """Runs the backward pass on the best instruction set or on the one named."""
    _check(NATIVE.library.scan_backward(problem, gradients, isa_index(isa), threads()))


def isa_index(isa: str | None) -> int:
    available = available_isas()
    if isa is not None and isa not in available:
        raise ValueError(f'This machine or library lacks {isa!r}; it has {", ".join(available)}.')
    return ISAS.index(available[-1] if isa is None else isa)


def _check(status: int) -> None:
    if status:
        raise MemoryError('The native scan could not allocate its workspace.')
