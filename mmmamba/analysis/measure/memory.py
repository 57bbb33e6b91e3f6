"""The one memory meter: what a function needs at its peak, above what was there before.

On CUDA that is what PyTorch's allocator gives to tensors and to the libraries that ask it for workspaces. On a CPU
there are two answers. :func:`peak_memory` counts tensors, exactly and as often as one likes. :class:`PeakMemory`
counts what the process holds, with all that libraries take by themselves (the native scan: scratch space of one chunk
for each thread); it needs a process of its own, and Linux.
"""
from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

MIB = 2**20
_STATUS, _CLEAR_REFS = Path('/proc/self/status'), Path('/proc/self/clear_refs')
_CGROUP = Path('/sys/fs/cgroup')  # inside of a container, the container's own
_CONTROL_GROUPS = ((_CGROUP / 'memory.max', _CGROUP / 'memory.current'),
                   (_CGROUP / 'memory/memory.limit_in_bytes', _CGROUP / 'memory/memory.usage_in_bytes'))
_RESET_PEAK = '5'  # proc(5)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
# Where glibc's own adjustment of the size starts, and where it ends once blocks as large were freed.
_LEAST_MAPPED, _USUALLY_MAPPED = 2**17, 2**25


class PeakMemory:
    """The peak between :meth:`start` and :meth:`stop`: on a CPU the resident memory of the process.

    From its creation to :meth:`stop`, the C library (glibc) then returns each larger block as soon as it is freed, so
    that the peak is what exists at once; else it would also have the holes that earlier blocks left in the heap. This
    costs page faults, therefore no time is to be taken meanwhile.

    Args:
        device: Where the tensors are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0
        if device.type == 'cpu':
            _map_blocks_from(_LEAST_MAPPED)

    def start(self) -> None:
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        else:
            _glibc('malloc_trim')(0)
            _CLEAR_REFS.write_text(_RESET_PEAK)
            self._before = _resident('VmRSS')

    def stop(self) -> tuple[int, int]:
        """Returns the peak since the start above what was there then, and the peak itself, in bytes."""
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
            peak = torch.cuda.max_memory_allocated(self._device)
        else:
            peak = _resident('VmHWM')
            _map_blocks_from(_USUALLY_MAPPED)
        return peak - self._before, peak


def peak_memory(run: Callable[[], object], device: torch.device) -> int:
    """Returns the most bytes of tensors at any time in ``run``, above what was there before; the same at every call.

    As PyTorch's allocator of the device counts them: what operators allocate inside is seen.
    """
    run()  # what is made once, as orders of visits and workspaces of libraries, is no part of a run
    if device.type == 'cuda':
        memory = PeakMemory(device)
        memory.start()
        run()
        return memory.stop()[0]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def limit_memory(limit: int, device: torch.device) -> None:
    """Has allocations fail that would take this process above a limit.

    Args:
        limit: Bytes; on CUDA of PyTorch's allocator, on a CPU of private memory, touched or not.
        device: Whose memory.
    """
    if device.type == 'cuda':
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(limit / total, 1.0))  # of the current device
    else:
        import resource  # which Windows lacks

        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def available_memory() -> int:
    """Returns the bytes that the system, and what limits this container, can give without taking any away."""
    system = 1024 * int(re.search(r'MemAvailable:\s+(\d+)', Path('/proc/meminfo').read_text(encoding='ascii'))[1])
    return min([system, *_left_in_container()])


def _left_in_container() -> Iterator[int]:
    """Yields the bytes below the limit of a control group, of either version, if there is one."""
    for limit, used in _CONTROL_GROUPS:
        if limit.exists() and used.exists() and (most := limit.read_text(encoding='ascii').strip()) != 'max':
            yield max(int(most) - int(used.read_text(encoding='ascii')), 0)


def _resident(name: str) -> int:
    """Returns ``VmRSS`` or ``VmHWM`` of this process in bytes; getrusage's peak would be the parent's, if higher."""
    return 1024 * int(re.search(rf'{name}:\s+(\d+)', _STATUS.read_text(encoding='utf-8'))[1])


def _map_blocks_from(size: int) -> None:
    """Has blocks of so many bytes mapped apart, and twice as many free ones at the heap's end returned."""
    _glibc('mallopt')(_M_MMAP_THRESHOLD, size)
    _glibc('mallopt')(_M_TRIM_THRESHOLD, 2 * size)


def _glibc(name: str) -> Callable[..., int]:
    """Returns a function of the C library; one that does nothing if it is another than glibc."""
    return getattr(ctypes.CDLL(None), name, lambda *_: 0)
