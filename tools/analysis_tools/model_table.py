"""Parameters, FLOPs and latency of models with the published figures: ``model_table.py [CONFIG …] [--latency]``.

A published figure agrees (``=``) where our count rounds to it, else differs (``≠``), and a note below the table says
which other way of counting gives it, all of them counted here: with norms, and of Mamba YOLO the other Blocks, with or
without LSBlock. FLOPs are of one image, 2 for a multiply-add; "as published" counts as the published table does: Mamba
YOLO's leaves out the scans and their projections, mmdet's has 1 for a multiply-add. Without CONFIG: Mamba YOLO, its
baselines, and published figures of others.
"""
from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from mmmamba.analysis.detector import build_detector, detector_environment, measure_latency
from mmmamba.analysis.measure import Table, Timing, write_csv
from mmmamba.analysis.model_table import (
    COLUMNS,
    LATENCY_COLUMNS,
    PUBLISHED_SHAPE,
    Row,
    cells_of,
    published_cells,
    published_record,
    record_of,
    table_row,
)
from mmmamba.analysis.published import LATENCY_CONDITIONS, PUBLISHED, PUBLISHED_ONLY, Published
from mmmamba.cli import describe, require_device, require_folder_of, run
from mmmamba.deploy import fuse
from mmmamba.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def main() -> None:
    args = parse_args()
    height, width = args.shape
    rows, latencies, failures = [], [], []
    for path in args.configs or default_configs():
        print(f'counting{" and timing" if args.latency else ""} {Path(path).stem}', file=sys.stderr, flush=True)
        try:
            row = table_row(path, height, width)
            latency = time_network(path, height, width, args.runs, args.device) if args.latency else None
        except Exception as error:  # whatever it is, the others have their rows
            failures.append(f'{path}: {describe(error) or f"{type(error).__name__}: {error}"}')
        else:
            rows.append(row)
            latencies.append(latency)
    if not rows:
        raise InputError('; '.join(failures))

    others = [] if args.configs else PUBLISHED_ONLY
    shown = [index for index, name in enumerate(COLUMNS) if args.latency or name not in LATENCY_COLUMNS]
    header, *cells = ([line[index] for index in shown] for line in (
        COLUMNS, *map(cells_of, rows, latencies), *map(published_cells, others)))
    missing = [f'- No row for {failure}' for failure in failures]
    table = Table(header, cells, words=COLUMNS[:1]).markdown(aligned=True)
    text = '\n'.join([table, '', *missing, *notes(rows, others, args)])
    print(text)
    if args.csv:
        where = {'height': height, 'width': width, **detector_environment(args.device, args.threads)}
        runs = args.runs if args.latency else None
        write_csv(args.csv, [*(record_of(row, latency, runs, where) for row, latency in zip(rows, latencies)),
                             *({'model': row.title, **published_record(row)} for row in others)])
    if args.markdown:
        args.markdown.write_text(text + '\n', encoding='utf-8')
    if failures:
        raise InputError(f'the table lacks {"; ".join(failures)}')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', metavar='CONFIG')
    parser.add_argument('--shape', type=int, nargs=2, default=(640, 640), metavar=('H', 'W'), help='image, in pixels')
    parser.add_argument('--latency', action='store_true', help="also time the networks, this package's layers fused")
    parser.add_argument('--runs', type=int, default=9, help='of which latency is the median; default: %(default)s')
    parser.add_argument('--device', default='cpu', help='on which to time: cpu, cuda or cuda:N; default: %(default)s')
    parser.add_argument(
        '--threads', type=int, default=torch.get_num_threads(), help='of the CPU; default: %(default)s')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='write the numbers, unrounded')
    parser.add_argument('--markdown', type=Path, metavar='FILE', help='write what is printed')
    args = parser.parse_args()
    for name in ('shape', 'runs', 'threads'):
        values = getattr(args, name)
        if min(values if name == 'shape' else [values]) < 1:
            raise InputError(f'--{name} must be positive, got {values}')
    for path in filter(None, (args.csv, args.markdown)):
        require_folder_of(path)
    require_device(args.device)
    torch.set_num_threads(args.threads)
    return args


def default_configs() -> list[str]:
    """Returns the config in ``configs/`` of each published name, as far as there is one."""
    return [str(path) for name in PUBLISHED for path in sorted(CONFIGS.glob(f'[!_]*/{name}_[0-9]*_coco.py'))]


def time_network(path: str, height: int, width: int, runs: int, device: str) -> Timing:
    return measure_latency(fuse(build_detector(path)).to(device), height, width, runs)


def notes(rows: Sequence[Row], others: Sequence[Published], args: argparse.Namespace) -> list[str]:
    lines = []
    for row in rows:
        for column, verdict in (('parameters', row.parameters), ('GFLOPs', row.flops)):
            if verdict is not None and not verdict.agrees:
                lines.append(f'- {row.name}, {column}: {verdict.reason}.')
    sources = {row.source: None for row in [*(row.published for row in rows if row.published), *others]}
    if sources:
        compared = '' if tuple(args.shape) == PUBLISHED_SHAPE else '; GFLOPs are of 640 x 640, and not compared'
        lines.append(f'- Published, and not ours: {"; ".join(sources)}{compared}.')
    if args.latency:
        where = detector_environment(args.device, args.threads)
        lines.append(f'- Latency: median, and 20th to 80th percentile, of {args.runs} runs of one image on '
                     f'{where["device"]}, float32, {args.threads} threads, without decoding and NMS; batch norms '
                     "folded in this package's layers alone. In the R-CNN family, heads see 1000 boxes and 100 masks, "
                     'without RoIAlign. Deformable attention is that of mmcv '
                     f'{where["mmcv"]}: lite has it in plain PyTorch.')
        if any(row.published and row.published.latency for row in rows):
            lines.append(f'- Published latency, which another machine has measured: {LATENCY_CONDITIONS}.')
    shape = f'{args.shape[0]} x {args.shape[1]}'
    return [*lines, f'- Ours at {shape}: `python {shlex.join(sys.argv)}`']


if __name__ == '__main__':
    run(main)
