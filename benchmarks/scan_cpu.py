"""Times ss2d_scan on the CPU at every scan of Mamba YOLO-T, 640 x 640, batch 1, and writes a CSV.

    python benchmarks/scan_cpu.py --threads 2 --csv benchmarks/scan_cpu.csv

A shape is timed only after its results, all gradients included, agreed with the float64 reference on a crop of the
map. The rows of the torch backend, on a small map, put the native kernel's in proportion within the same run.
"""
from __future__ import annotations

import argparse
import csv
import platform
import statistics
import time
from pathlib import Path
from typing import Callable, NamedTuple

import torch
from torch import Tensor

from mmmamba.ops import ss2d_scan
from mmmamba.ops.cpu import native
from mmmamba.ops.ss2d_scan.backends import BACKENDS
from mmmamba.version import __version__

STATES = 16


class Scan(NamedTuple):
    """A scan of the model: channels, side of the map, rank of dt, and how often it runs in a forward pass."""

    channels: int
    side: int
    rank: int
    times: int


MAMBA_YOLO_T = (Scan(64, 160, 2, 1), Scan(128, 80, 4, 3), Scan(256, 40, 8, 4), Scan(512, 20, 16, 2))
SMALL = Scan(64, 40, 2, 0)


def make_inputs(scan: Scan, side: int) -> list[Tensor]:
    torch.manual_seed(0)
    x = torch.randn(1, scan.channels, side, side).contiguous(memory_format=torch.channels_last)
    return [
        x,
        torch.randn(4, scan.rank + 2 * STATES, scan.channels) / scan.channels**0.5,
        torch.randn(4, scan.channels, scan.rank) / scan.rank**0.5,
        torch.randn(4, scan.channels),
        torch.randn(4 * scan.channels, STATES) * 0.3,
        torch.randn(4 * scan.channels),
    ]


def with_gradients(inputs: list[Tensor], backend: str) -> list[Tensor]:
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    y = ss2d_scan(*inputs, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, inputs, torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y))]


def check(scan: Scan, backend: str) -> float:
    """Returns the largest relative error on a crop of at most 12 x 12 pixels; stops the run if it is too large."""
    inputs = make_inputs(scan, min(scan.side, 12))
    expected = with_gradients([tensor.double() for tensor in inputs], 'reference')
    errors = [
        float((got - value).norm() / value.norm()) for got, value in zip(with_gradients(inputs, backend), expected)
    ]
    tolerance = next(b for b in BACKENDS if b.name == backend).tolerances[torch.float32]
    if errors[0] > tolerance.forward or max(errors[1:]) > tolerance.gradient:
        raise SystemExit(f'error: {backend} is wrong at {scan}: relative errors {errors}')
    return max(errors)


def milliseconds(run: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median, 20th and 80th percentile."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    fifths = statistics.quantiles(times, n=5, method='inclusive')
    return statistics.median(times), fifths[0], fifths[3]


def measure(scan: Scan, backend: str, repeats: int) -> list[dict[str, object]]:
    error = check(scan, backend)
    inputs = make_inputs(scan, scan.side)

    def forward() -> None:
        with torch.no_grad():
            ss2d_scan(*inputs, backend=backend)

    rows = []
    for direction, run in (('forward', forward), ('forward+backward', lambda: with_gradients(inputs, backend))):
        median, p20, p80 = milliseconds(run, repeats)
        rows.append({
            'backend': backend, 'direction': direction, **scan._asdict(), 'states': STATES,
            'median_ms': round(median, 3), 'p20_ms': round(p20, 3), 'p80_ms': round(p80, 3), 'error': f'{error:.1e}',
        })
    return rows


def total(rows: list[dict], direction: str) -> dict[str, object]:
    """All scans of the model, from the medians and percentiles of the native rows."""
    own = [row for row in rows if row['backend'] == 'cpu' and row['direction'] == direction]
    sums = {key: round(sum(row['times'] * row[key] for row in own), 3) for key in ('median_ms', 'p20_ms', 'p80_ms')}
    return {'backend': 'cpu', 'direction': f'{direction}, all scans of T', **sums}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--repeats', type=int, default=30)
    parser.add_argument('--csv', type=Path, help='where to write the rows')
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [row for scan in MAMBA_YOLO_T for row in measure(scan, 'cpu', arguments.repeats)]
    rows += [total(rows, direction) for direction in ('forward', 'forward+backward')]
    for backend in ('cpu', 'torch'):
        rows += measure(SMALL, backend, max(2, arguments.repeats // 5))
    machine = {
        'threads': arguments.threads, 'isa': native.available_isas()[-1], 'machine': platform.machine(),
        'mmmamba': __version__, 'torch': torch.__version__,
    }
    for row in rows:
        row.update(machine)
        print(f"{row['backend']:<6}{row['direction']:<34}{row.get('channels', ''):>5} x {row.get('side', ''):<4}"
              f"{row['median_ms']:>10.2f} ms  (p20 {row['p20_ms']:.2f}, p80 {row['p80_ms']:.2f})")
    forward_rows = [row for row in rows if row.get('times') == 0 and row['direction'] == 'forward']
    small = {row['backend']: row['median_ms'] for row in forward_rows}
    ratio = small['torch'] / small['cpu']
    print(f'the torch backend takes {ratio:.0f} times as long (forward, {SMALL.channels} x {SMALL.side})')
    if arguments.csv:
        with arguments.csv.open('w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == '__main__':
    main()
