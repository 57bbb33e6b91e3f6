"""The one stopwatch: how long functions take, on the CPU and on CUDA, side by side."""
from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple, TypeVar

import torch

Run = Callable[[], object]
Result = TypeVar('Result')

WARM_UP = 2
"""Runs that are not timed: Triton compiles, and libraries choose their algorithms, in the first."""
GRAPH_WARM_UP = 3
"""Runs before a capture, as PyTorch's notes on CUDA graphs recommend."""
FLUSH_BYTES = 256 * 2**20
"""More than the second-level cache of any GPU so far holds (H200: 50 MB)."""


class Timing(NamedTuple):
    """Milliseconds: the median, and the 20th and 80th percentile."""

    median: float
    p20: float
    p80: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Timing:
        """Summarises one or more times."""
        if len(times) == 1:
            return cls(*times, *times, *times)
        fifths = statistics.quantiles(times, n=5, method='inclusive')
        return cls(statistics.median(times), fifths[0], fifths[3])

    def columns(self) -> dict[str, float]:
        """Returns the columns of a row, rounded to a tenth of a microsecond."""
        return {f'{name}_ms': round(value, 4) for name, value in self._asdict().items()}


class Effort(NamedTuple):
    """How long to measure: rounds until ``seconds`` are over, but at least and at most so many."""

    seconds: float = 4.0
    least: int = 5
    most: int = 50

    @classmethod
    def rounds(cls, number: int) -> Effort:
        """Returns the effort of a number of rounds, however long they take."""
        return cls(0, number, number)


def interleaved(
    runs: Mapping[str, Run], device: torch.device, effort: Effort, cold: bool = False, warm_up: int = WARM_UP
) -> dict[str, Timing]:
    """Times every function once in each round (A B A B …), so that what slows the machine slows all of them.

    On the CPU by the clock. On CUDA by events before and after the function on one stream: where launches take longer
    than what they launch, the launches are what is timed, unless the function replays a CUDA graph.

    Args:
        runs: Functions by name.
        device: Where they run.
        effort: How many rounds.
        cold: Whether, on CUDA, the second-level cache is overwritten before each run. Kernels alone are timed so: in a
            network, what other layers wrote has displaced their inputs. Whole networks are not.
        warm_up: Runs of each that are not timed; fewer than usual for what has run before.
    """
    clock = _CudaClock(device, cold) if device.type == 'cuda' else _cpu_clock
    for run in runs.values():
        for _ in range(warm_up):
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
        with torch.cuda.device(self.device):  # events belong to the current one
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            if self.flush is not None:
                self.flush.zero_()
            start.record()
            run()
            end.record()
            end.synchronize()
            return start.elapsed_time(end)


def modes(device: torch.device) -> tuple[str, ...]:
    """Returns how to time: as a caller sees it and, on CUDA, without the time that launches take."""
    return ('eager', 'graph') if device.type == 'cuda' else ('eager',)


def captured(run: Callable[[], Result]) -> Callable[[], Result]:
    """Returns ``run`` in a CUDA graph: what replays it and returns the same tensors, overwritten, each time."""
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
