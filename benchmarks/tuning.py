"""Looks for faster tilings of the Triton kernels: ``python -m benchmarks.tuning --models t --csv tilings.csv``."""
from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.contenders import incoming_gradient, scan_inputs
from benchmarks.networks import MAMBA_YOLO
from benchmarks.shapes import ScanShape, distinct_scans
from mmmamba.analysis.measure import (
    Effort,
    Row,
    Table,
    captured,
    failure_line,
    interleaved,
    with_environment,
    write_csv,
)
from mmmamba.ops.scan.fused import ScanInputs
from mmmamba.ops.scan.orders import directions_of
from mmmamba.ops.scan.ss2d_scan import fused

OPTIONS: Mapping[str, tuple[int, ...]] = MappingProxyType({
    'chunk': (16, 32, 64, 128, 256, 512),
    'programs': (528, 792, 1056, 1584, 2112),
    'splits': (1, 2, 4),
    'block': (32, 64),
    'tile': (8, 16),
    'carry_rows': (16, 32, 64),
})
"""What is tried for each field of a tiling, the ones that matter most first."""
EFFORT = Effort(0.05, 5, 20)
LEAST = 10
"""Seconds that a candidate may take where its kernels have to be compiled."""


def descend(start: Any, options: Mapping[str, Sequence[int]], cost: Callable[[Any], float]) -> Any:
    """Changes one field of a dataclass after the other and keeps what costs less; skips what its class refuses."""
    best, least = start, cost(start)
    for field, values in options.items():
        for value in values:
            if value == getattr(best, field):
                continue
            try:
                candidate = replace(best, **{field: value})
            except ValueError:  # the fields limit one another
                continue
            found = cost(candidate)
            if found < least:
                best, least = candidate, found
    return best


def kernel_inputs(shape: ScanShape, device: torch.device, pattern: str | tuple[str, ...] = 'cross') -> ScanInputs:
    """Returns what the fused scan takes for a shape and a pattern of four directions."""
    seen: list[ScanInputs] = []

    def record(inputs: ScanInputs) -> tuple[Tensor, None]:
        seen.append(ScanInputs(*[a.contiguous() if isinstance(a, Tensor) else a for a in inputs]))
        return inputs.x, None

    fused(record, F.linear, *scan_inputs(shape, 1, device, torch.float32).values(), directions_of(pattern))
    return seen[0]


def tilings(shape: ScanShape, device: torch.device, left: Callable[[], float]) -> list[Row]:
    """Rows of the tilings that were tried for a shape, fastest first, until the time is over.

    A tiling serves both passes, since the backward pass takes the chunks' states of the forward pass: what counts is
    the sum of both. Kernels alone, replayed from CUDA graphs, without the projection of the pixels.
    """
    from triton.errors import TritonError

    from mmmamba.ops.triton import scan
    from mmmamba.ops.triton.geometry import geometry
    from mmmamba.ops.triton.tiling import choose_tiling

    inputs = kernel_inputs(shape, device)
    gradient = incoming_gradient(inputs.x)
    rows: list[Row] = []

    def cost(tiling: Any) -> float:
        if left() < LEAST:
            return math.inf
        row = {**shape._asdict(), **asdict(tiling)}
        try:
            states = scan.forward(inputs, True, tiling)[2]
            timings = interleaved({
                'forward': captured(lambda: scan.forward(inputs, True, tiling)),
                'backward': captured(lambda: scan.backward(inputs, states, gradient, None, tiling)),
            }, device, EFFORT, cold=True)
        except (RuntimeError, TritonError) as error:  # more registers or shared memory than there are
            rows.append({**row, 'both_ms': math.inf, 'refused': failure_line(error)})
            return math.inf
        medians = {f'{name}_ms': round(timing.median, 4) for name, timing in timings.items()}
        both = sum(medians.values())
        rows.append({**row, **medians, 'both_ms': round(both, 4)})
        return both

    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    descend(choose_tiling(geometry(inputs), multiprocessors, keep=True), OPTIONS, cost)
    return sorted(rows, key=lambda row: row['both_ms'])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--models', nargs='+', choices=MAMBA_YOLO, default=list(MAMBA_YOLO))
    parser.add_argument('--side', type=int, default=640, help='of the square image, a multiple of 32')
    parser.add_argument('--seconds', type=float, default=300, help='for all shapes')
    parser.add_argument('--csv', type=Path, help='file to write')
    args = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error('this PyTorch sees no CUDA device')
    if args.side % 32:
        parser.error('--side must be a multiple of 32')
    device, end = torch.device('cuda'), time.monotonic() + args.seconds
    rows: list[Row] = []
    for shape in distinct_scans(args.models, [args.side]):
        found = tilings(shape, device, lambda: end - time.monotonic())
        print(Table.of_records(found[:5]).text())
        rows += found
    if args.csv:
        write_csv(args.csv, with_environment(rows, device))


if __name__ == '__main__':
    main()
