"""Times the scans of LocalMamba's directions next to 'cross', in turns: ``python -m benchmarks.directions``.

The maps are those of LocalVMamba-T in an image of 1280 x 800, and of the stages of Mamba YOLO T at 640 x 640.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.contenders import scan_inputs
from benchmarks.scan import PASSES, forward, forward_backward
from benchmarks.shapes import ScanShape
from mmmamba.analysis.measure import Effort, Row, Table, interleaved, with_environment, write_csv
from mmmamba.cli import device_named
from mmmamba.ops import ss2d_scan

PATTERNS: dict[str, str | tuple[str, ...]] = {
    'cross': 'cross',
    'h v w2 w7': ('h', 'v', 'w2', 'w7'),
    'v_flip w2_flip w7 w7_flip': ('v_flip', 'w2_flip', 'w7', 'w7_flip'),
}
"""Names → directions: 'cross', with which the others are compared, some windows, and as many as LocalVMamba has."""
SHAPES = (
    *(ScanShape(192 * 2**i, 200 // 2**i, 320 // 2**i, 6 * 2**i) for i in range(4)),
    *(ScanShape(64 * 2**i, 160 // 2**i, 160 // 2**i, 2 * 2**i) for i in range(4)),
)


def measure(shape: ScanShape, device: torch.device, effort: Effort) -> list[Row]:
    """Rows of one shape: each pattern and pass, with its time over that of 'cross'."""
    inputs, rows = scan_inputs(shape, 1, device, torch.float32), []
    for kind, make in zip(PASSES, (forward, forward_backward)):
        runs = {name: make(partial(ss2d_scan, pattern=pattern), inputs) for name, pattern in PATTERNS.items()}
        timings = interleaved(runs, device, effort)
        rows += [{**shape._asdict(), 'pass': kind, 'directions': name, **timing.columns(),
                  'over_cross': round(timing.median / timings['cross'].median, 3)}
                 for name, timing in timings.items()]
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', type=device_named, default='cpu')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='of the CPU')
    parser.add_argument('--seconds', type=float, default=Effort().seconds, help='for each shape and pass')
    parser.add_argument('--shapes', type=int, default=len(SHAPES), help='how many of the shapes')
    parser.add_argument('--csv', type=Path, help='file to write')
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    rows = [row for shape in SHAPES[-args.shapes:] for row in measure(shape, args.device, Effort(args.seconds))]
    print(Table.of_records(rows).text())
    if args.csv:
        write_csv(args.csv, with_environment(rows, args.device))


if __name__ == '__main__':
    main()
