"""Times every scan of Mamba YOLO on every backend that can run, side by side: ``python -m benchmarks.scan``.

A backend is timed only after its results, all gradients included, agreed with the recurrence in float64 on a crop of
the map. The last rows are sums over all scans of a model's forward pass, of medians and of percentiles.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.contenders import Inputs, Scan, able, as_scan, gate, incoming_gradient, is_unfused, scan_inputs
from benchmarks.networks import MAMBA_YOLO
from benchmarks.plot import plot_scans
from benchmarks.shapes import H200_BANDWIDTH, H200_CLOCK, Ceilings, ScanShape, bound_ms, distinct_scans, scans_of
from mmmamba.analysis.measure import (
    MIB,
    Effort,
    Row,
    Run,
    Table,
    attempted,
    captured,
    failure_line,
    interleaved,
    modes,
    peak_memory,
    with_environment,
    write_csv,
)
from mmmamba.cli import device_named
from mmmamba.ops.dispatch import Backend

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
PASSES = ('forward', 'forward+backward')
WAY = ('backend', 'unfused', 'pass', 'mode', 'dtype', 'batch')
"""What a sum over the scans of a model keeps apart."""
SUMMED = ('median_ms', 'p20_ms', 'p80_ms', 'bound_ms')


def forward(scan: Scan, inputs: Inputs) -> Run:
    def run() -> object:
        with torch.no_grad():
            return scan(*inputs.values())

    return run


def forward_backward(scan: Scan, inputs: Inputs) -> Run:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs.values()]
    incoming = incoming_gradient(inputs['x'])
    return lambda: torch.autograd.grad(scan(*leaves), leaves, incoming)


def measure_shape(
    shape: ScanShape,
    backends: Mapping[str, Backend],
    device: torch.device,
    dtype: str,
    batch: int,
    effort: Effort,
    ceilings: Ceilings | None,
) -> list[Row]:
    """Rows of one scan: each backend and pass; on CUDA each as a caller sees it ('eager') and in a CUDA graph.

    A backend that disagrees with the reference, or that fails, has a row with the ``failure`` instead of times.
    """
    ways = {name: {'backend': name, 'unfused': is_unfused(backend)} for name, backend in backends.items()}
    errors, failures = attempted({
        name: partial(gate, backend, shape, device, DTYPES[dtype]) for name, backend in backends.items()})
    rows: list[Row] = [{**ways[name], 'failure': why} for name, why in failures.items()]
    inputs = scan_inputs(shape, batch, device, DTYPES[dtype])
    for kind, make in zip(PASSES, (forward, forward_backward)):
        runs = {name: make(as_scan(backends[name]), inputs) for name in errors}
        # The first run at full size: what does not fit, or cannot be launched, is found here.
        peaks, failures = attempted({name: partial(peak_memory, run, device) for name, run in runs.items()})
        rows += [{**ways[name], 'pass': kind, 'failure': why} for name, why in failures.items()]
        runs = {name: runs[name] for name in peaks}
        bound = {} if ceilings is None else {
            'bound_ms': bound_ms(shape, batch, inputs['x'].element_size(), kind != 'forward', ceilings)}
        for mode in modes(device):
            if mode == 'graph':
                runs, failures = attempted({name: partial(captured, run) for name, run in runs.items()})
                rows += [{**ways[name], 'pass': kind, 'mode': mode, 'failure': why} for name, why in failures.items()]
            for name, timing in interleaved(runs, device, effort, cold=True).items():
                rows.append({**ways[name], 'pass': kind, 'mode': mode, **timing.columns(),
                             'peak_mib': round(peaks[name] / MIB, 3), 'error': f'{errors[name]:.1e}', **bound})
    return [{**row, 'dtype': dtype, 'batch': batch, **shape._asdict()} for row in rows]


def totals(rows: Sequence[Row], size: str, side: int) -> list[Row]:
    """Adds up all scans of a model's forward pass, for each backend, pass, mode and dtype of which there are all."""
    counts = scans_of(size, side)
    groups: dict[tuple, dict[ScanShape, Row]] = {}
    for row in rows:
        shape = ScanShape(*(row[field] for field in ScanShape._fields))
        if shape in counts and 'failure' not in row:
            groups.setdefault(tuple(row[key] for key in WAY), {})[shape] = row
    found = []
    for group, own in groups.items():
        if own.keys() == counts.keys():
            sums = {key: round(sum(counts[shape] * row[key] for shape, row in own.items()), 4)
                    for key in SUMMED if all(key in row for row in own.values())}
            found.append({**dict(zip(WAY, group)), 'scans': f'all of mamba-yolo_{size} at {side}', **sums})
    return found


def add_ratios(rows: Sequence[Row]) -> None:
    """Writes into each row how many times as fast as the best unfused path it is, and how far from the bound."""
    same = (*WAY[2:], *ScanShape._fields, 'scans')
    unfused: dict[tuple, float] = {}
    rows = [row for row in rows if 'failure' not in row]
    for row in rows:
        if row['unfused']:
            group = tuple(row.get(key) for key in same)
            unfused[group] = min(row['median_ms'], unfused.get(group, row['median_ms']))
    for row in rows:
        group = tuple(row.get(key) for key in same)
        if group in unfused:
            row['unfused_over_this'] = round(unfused[group] / row['median_ms'], 2)
        if 'bound_ms' in row:
            row['this_over_bound'] = round(row['median_ms'] / row['bound_ms'], 2)


def measure_models(
    sizes: Sequence[str],
    sides: Sequence[int],
    backends: Mapping[str, Backend],
    device: torch.device,
    dtypes: Sequence[str],
    batch: int,
    effort: Effort,
    ceilings: Ceilings | None,
) -> list[Row]:
    """Rows of every distinct scan of the models, then their totals; a scan that fails as a whole has one with why."""
    measure = partial(measure_shape, device=device, batch=batch, effort=effort, ceilings=ceilings)
    rows = []
    for shape in distinct_scans(sizes, sides):
        for dtype in dtypes:
            takes = {name: backend for name, backend in backends.items() if DTYPES[dtype] in backend.dtypes}
            try:
                rows += measure(shape, takes, dtype=dtype)
            except Exception as error:  # inputs that do not fit, say: the rows of other scans are kept
                rows.append({'backend': 'all', 'unfused': False, 'failure': failure_line(error), 'dtype': dtype,
                             'batch': batch, **shape._asdict()})
            print(f'{shape}, {dtype}', file=sys.stderr)
    rows += [row for side in sides for size in sizes for row in totals(rows, size, side)]
    add_ratios(rows)
    return rows


def add_ceilings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--bandwidth', type=float, default=H200_BANDWIDTH, help='of the GPU, TB/s, for the bound')
    parser.add_argument('--clock', type=float, default=H200_CLOCK, help='of the GPU, GHz, for the bound')


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', type=device_named, default='cpu')
    parser.add_argument('--models', nargs='+', choices=MAMBA_YOLO, default=['t'])
    parser.add_argument('--sides', nargs='+', type=int, default=[640], help='of the square image, multiples of 32')
    parser.add_argument('--backends', nargs='+', help='as the rows call them; default: all that run but the reference')
    parser.add_argument('--dtypes', nargs='+', choices=DTYPES, default=['fp32'], help='of the map')
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='of the CPU')
    parser.add_argument('--seconds', type=float, default=Effort().seconds, help='for each shape, pass and mode')
    parser.add_argument('--csv', type=Path, help='file to write')
    parser.add_argument('--plot', type=Path, help='picture to write (needs matplotlib)')
    add_ceilings(parser)
    args = parser.parse_args(arguments)
    try:
        args.backends = able(args.device, args.backends)
        distinct_scans(args.models, args.sides)
    except ValueError as error:
        parser.error(str(error))
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    torch.set_num_threads(args.threads)
    ceilings = Ceilings.of(args.device, args.bandwidth, args.clock) if args.device.type == 'cuda' else None
    rows = measure_models(args.models, args.sides, args.backends, args.device, args.dtypes, args.batch,
                          Effort(args.seconds), ceilings)
    print(Table.of_records(rows).text())
    if args.csv:
        write_csv(args.csv, with_environment(rows, args.device))
    if args.plot:
        plot_scans(rows, args.plot)
    sys.exit(any('failure' in row for row in rows))


if __name__ == '__main__':
    main()
