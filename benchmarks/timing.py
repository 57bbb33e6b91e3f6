"""Time and peak memory of a function, on the CPU and on CUDA."""
from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

Run = Callable[[], object]
Result = TypeVar('Result')

WARM_UP = 2
"""Runs that are not timed: Triton compiles, and libraries choose their algorithms, in the first."""
GRAPH_WARM_UP = 3
"""Runs before a capture, as PyTorch's notes on CUDA graphs recommend."""
FLUSH_BYTES = 256 * 2**20
"""More than the second-level cache of any GPU so far holds (H200: 50 MB)."""
MIB = 2**20


class Timing(NamedTuple):
    """Milliseconds: the median, and the 20th and 80th percentile."""

    median: float
    p20: float
    p80: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Timing:
        fifths = statistics.quantiles(times, n=5, method='inclusive')
        return cls(statistics.median(times), fifths[0], fifths[3])


class Effort(NamedTuple):
    """How long to measure: rounds until ``seconds`` are over, but at least (two or more) and at most so many."""

    seconds: float = 4.0
    least: int = 5
    most: int = 50


def interleaved(
    runs: Mapping[str, Run], device: torch.device, effort: Effort, cold: bool = False
) -> dict[str, Timing]:
    """Times every function once in each round (A B A B …), so that what slows the machine slows all of them.

    On the CPU by the clock. On CUDA by events before and behind the function on one stream: where launches take longer
    than what they launch, the launches are what is timed, unless the function replays a CUDA graph.

    Args:
        runs: Functions by name.
        device: Where they run.
        effort: How many rounds.
        cold: Whether, on CUDA, the second-level cache is overwritten before each run. Kernels alone are timed so: in a
            network, what other layers wrote has displaced their inputs. Whole networks are not.
    """
    clock = _CudaClock(device, cold) if device.type == 'cuda' else _cpu_clock
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + effort.seconds
    for done in range(effort.most):
        if done >= effort.least and time.perf_counter() > end:
            break
        for name, run in runs.items():
            times[name].append(clock(run))
    return {name: Timing.of(values) for name, values in times.items()}


def _cpu_clock(run: Run) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


class _CudaClock:
    def __init__(self, device: torch.device, cold: bool) -> None:
        self.device = device
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device) if cold else None

    def __call__(self, run: Run) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        if self.flush is not None:
            self.flush.zero_()
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


def captured(run: Callable[[], Result]) -> Callable[[], Result]:
    """``run`` in a CUDA graph: a function that replays it and returns the same tensors, overwritten, each time."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(GRAPH_WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run()

    def replay() -> Result:
        graph.replay()
        return kept

    return replay


def peak_memory(run: Run, device: torch.device) -> int:
    """Bytes of tensors that stood at once during ``run``, above what stood before; the same at every call.

    As PyTorch's allocator of the device counts them: what operators allocate inside is seen, what a library takes
    from the system by itself (the native scan: its scratch space of one chunk for each thread) is not.
    """
    run()  # what is made once, as orders of visits and workspaces of libraries, is no part of a run
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The power of the size that fits ``values`` best, by least squares of the logarithms: 1 is linear."""
    xs, ys = ([math.log(value) for value in values] for values in (sizes, values))
    x_mean, y_mean = statistics.fmean(xs), statistics.fmean(ys)
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys)) / sum((x - x_mean) ** 2 for x in xs)
