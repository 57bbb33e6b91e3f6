"""Training memory of an ODSS block, and of a scan against its length: ``python -m benchmarks.block_memory``.

The block is the first of Mamba YOLO-T, on the map that an image of 640 x 640 has there, with the fused scan and with
the unfused path instead. Then time and memory of the scan's forward and backward pass from 400 to 102,400 tokens,
with the exponent of the power law that fits best; 1 is linear.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.contenders import Scan, able, as_scan, gate, is_unfused, scan_inputs
from benchmarks.networks import MAMBA_YOLO
from benchmarks.scan import forward_backward
from benchmarks.shapes import STRIDES, ScanShape, scans_of
from mmmamba.analysis.measure import (
    MIB,
    Effort,
    Row,
    Run,
    Table,
    attempted,
    fit_power_law,
    interleaved,
    peak_memory,
    with_environment,
    write_csv,
)
from mmmamba.cli import device_named
from mmmamba.layers import SS2D, ODSSBlock
from mmmamba.ops.dispatch import Backend

SIDES = (20, 40, 80, 160, 320)
"""Of maps: 400 to 102,400 tokens."""


class BackendSS2D(SS2D):
    """An SS2D that scans with any contender."""

    contender: Scan

    def scan(self, u: Tensor) -> Tensor:
        return self.contender(
            u, self.x_proj_weight, self.dt_projs_weight, self.dt_projs_bias, self.A_logs, self.Ds,
            pattern=self.directions)


def scan_with(block: nn.Module, backend: Backend) -> None:
    """Has every SS2D in a block scan with ``backend`` from now on."""
    for layer in block.modules():
        if type(layer) is SS2D:
            layer.__class__, layer.contender = BackendSS2D, as_scan(backend)


def block_step(backend: Backend, side: int, device: torch.device) -> Run:
    """Makes a forward and backward pass of Mamba YOLO-T's first block on such an image, with the map's gradient.

    The parameters' gradients are there before, as in all steps of a training but the first.
    """
    torch.manual_seed(0)
    width = MAMBA_YOLO['t'].widths[0]
    block = ODSSBlock(width, width).to(device, memory_format=torch.channels_last)
    scan_with(block, backend)
    x = torch.randn(1, width, side // STRIDES[0], side // STRIDES[0], device=device)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()

    return lambda: block(x).square().mean().backward()


def measure_blocks(side: int, backends: dict[str, Backend], device: torch.device, effort: Effort) -> list[Row]:
    """Measures a row for each backend; ``of_unfused`` is its peak over the least of an unfused path.

    A backend that disagrees with the reference, or that fails, has a row with the ``failure`` instead of times.
    """
    shape = next(iter(scans_of('t', side)))
    what = {'what': 'ODSS block, forward+backward', 'tokens': shape.height * shape.width}
    errors, disagreeing = attempted({
        name: partial(gate, backend, shape, device, torch.float32) for name, backend in backends.items()})
    runs = {name: block_step(backends[name], side, device) for name in errors}
    peaks, failing = attempted({name: partial(peak_memory, run, device) for name, run in runs.items()})
    timings = interleaved({name: runs[name] for name in peaks}, device, effort)
    unfused = min((peak for name, peak in peaks.items() if is_unfused(backends[name])), default=None)
    rows = [{
        **what, 'backend': name, **timings[name].columns(), 'peak_mib': round(peak / MIB, 3),
        **({} if unfused is None else {'of_unfused': round(peak / unfused, 3)}), 'error': f'{errors[name]:.1e}'
    } for name, peak in peaks.items()]
    return rows + [{**what, 'backend': name, 'failure': why} for name, why in {**disagreeing, **failing}.items()]


def measure_lengths(
    sides: Sequence[int], backends: dict[str, Backend], device: torch.device, effort: Effort
) -> list[Row]:
    """Rows of the scan of growing maps, then a row with the exponents of time and memory, for each backend.

    A backend that fails on a map has a row with the ``failure``, and neither longer maps nor exponents.
    """
    first = next(iter(scans_of('t', 640)))
    rows, names = [], list(backends)
    for side in sides:
        shape: ScanShape = first._replace(height=side, width=side)
        what = {'what': 'scan, forward+backward', 'tokens': side * side}
        inputs = scan_inputs(shape, 1, device, torch.float32)
        runs = {name: forward_backward(as_scan(backends[name]), inputs) for name in names}
        peaks, failing = attempted({name: partial(peak_memory, run, device) for name, run in runs.items()})
        rows += [{**what, 'backend': name, 'failure': why} for name, why in failing.items()]
        names = list(peaks)
        timings = interleaved({name: runs[name] for name in names}, device, effort, cold=True)
        rows += [{**what, 'backend': name, **timings[name].columns(), 'peak_mib': round(peaks[name] / MIB, 3)}
                 for name in names]
    for name in names:
        own = [row for row in rows if row['backend'] == name]
        tokens = [row['tokens'] for row in own]
        rows.append({'what': 'exponent against tokens', 'backend': name, **{
            key: round(fit_power_law(tokens, [row[key] for row in own]).exponent, 3)
            for key in ('median_ms', 'peak_mib')}})
    return rows


def measure(
    side: int, sides: Sequence[int], backends: dict[str, Backend], device: torch.device, effort: Effort
) -> list[Row]:
    """Rows of the block, then of growing maps for the backends that did not fail there."""
    rows = measure_blocks(side, backends, device, effort)
    good = {row['backend']: backends[row['backend']] for row in rows if 'failure' not in row}
    return rows + measure_lengths(sides, good, device, effort)


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', type=device_named, default='cpu')
    parser.add_argument('--backends', nargs='+', help='default: all that run but torch and the reference')
    parser.add_argument('--side', type=int, default=640, help='of the image whose first map the block works on')
    parser.add_argument('--sides', nargs='+', type=int, default=SIDES, help='of the maps of growing length')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='of the CPU')
    parser.add_argument('--seconds', type=float, default=6, help='for each map')
    parser.add_argument('--csv', type=Path, help='file to write')
    args = parser.parse_args(arguments)
    try:
        args.backends = kernels(args.device) if args.backends is None else able(args.device, args.backends)
        scans_of('t', args.side)
    except ValueError as error:
        parser.error(str(error))
    if len(set(args.sides)) < 2:
        parser.error('--sides needs at least two')
    return args


def kernels(device: torch.device) -> dict[str, Backend]:
    """Returns the contenders that are kernels: PyTorch's operations alone take minutes for a long scan."""
    return {name: backend for name, backend in able(device).items() if name != 'torch'}


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    torch.set_num_threads(args.threads)
    rows = measure(args.side, args.sides, args.backends, args.device, Effort(args.seconds))
    print(Table.of_records(rows).text())
    if args.csv:
        write_csv(args.csv, with_environment(rows, args.device))
    sys.exit(any('failure' in row for row in rows))


if __name__ == '__main__':
    main()
