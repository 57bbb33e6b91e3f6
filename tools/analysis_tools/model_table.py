"""Parameters, FLOPs and latency of models beside the published figures: ``model_table.py [CONFIG …] [--latency]``.

A published figure agrees (``=``) where our count rounds to it, else differs (``≠``), and a note below the table says
which other way of counting gives it, all of them counted here: with norms, and of Mamba YOLO the other Blocks, with or
without LSBlock. FLOPs are of one image, 2 for a multiply-add; "as published" counts as the published table does: Mamba
YOLO's leaves out the scans and their projections, mmdet's has 1 for a multiply-add. Without CONFIG: Mamba YOLO, its
baselines, and published figures of others.
"""
from __future__ import annotations

import argparse
import csv
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from mmmamba.analysis import (
    PUBLISHED,
    PUBLISHED_ONLY,
    PUBLISHED_SHAPE,
    Latency,
    Published,
    Row,
    build_detector,
    measure_latency,
    table_row,
)
from mmmamba.analysis.arguments import require_device, require_folder_of
from mmmamba.analysis.environment import detector_environment
from mmmamba.analysis.published import LATENCY_CONDITIONS
from mmmamba.cli import describe, run
from mmmamba.deploy import fuse
from mmmamba.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
COLUMNS = ('model', 'parameters (M)', 'published', 'conv+linear GFLOPs', 'of them projections', 'scan GFLOPs',
           'as published', 'published GFLOPs', 'published AP', 'latency (ms)', 'published ms')
LATENCY_COLUMNS = COLUMNS[-2:]
NOTHING = '–'


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
    cells = [*map(cells_of, rows, latencies), *map(published_cells, others)]
    missing = [f'- No row for {failure}' for failure in failures]
    text = '\n'.join([*table(cells, args.latency), '', *missing, *notes(rows, others, args)])
    print(text)
    if args.csv:
        write_csv(args.csv, rows, latencies, others, args)
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
    """The config in ``configs/`` of each published name, as far as there is one."""
    return [str(path) for name in PUBLISHED for path in sorted(CONFIGS.glob(f'[!_]*/{name}_[0-9]*_coco.py'))]


def time_network(path: str, height: int, width: int, runs: int, device: str) -> Latency:
    return measure_latency(fuse(build_detector(path)).to(device), height, width, runs)


def cells_of(row: Row, latency: Latency | None) -> list[str]:
    cost, published = row.cost, row.published or Published('', None, None, None)

    def beside(figure: str | None, agrees: bool | None) -> str:
        return f'{figure} {"=" if agrees else "≠"}' if agrees is not None else figure or NOTHING

    return [
        row.name,
        f'{cost.parameters / 1e6:.2f}',
        beside(published.parameters, row.parameters and row.parameters.agrees),
        f'{cost.linear_flops / 1e9:.2f}',
        f'{cost.projection_flops / 1e9:.2f}' if cost.scan_flops else NOTHING,
        f'{cost.scan_flops / 1e9:.2f}' if cost.scan_flops else NOTHING,
        NOTHING if row.published_flops is None else f'{row.published_flops:.2f}',
        beside(published.gflops, row.flops and row.flops.agrees),
        published.ap or NOTHING,
        NOTHING if latency is None else f'{latency.median:.1f} ({latency.p20:.1f} to {latency.p80:.1f})',
        published.latency or NOTHING,
    ]


def published_cells(row: Published) -> list[str]:
    return [row.title, NOTHING, row.parameters, *[NOTHING] * 4, row.gflops, row.ap, NOTHING, row.latency or NOTHING]


def table(rows: Sequence[Sequence[str]], with_latency: bool) -> list[str]:
    """Lines of a markdown table whose columns stand below each other."""
    columns = [column for column in zip(COLUMNS, *rows) if with_latency or column[0] not in LATENCY_COLUMNS]
    widths = [max(map(len, column)) for column in columns]
    first, *others = zip(*columns)

    def line(cells: Sequence[str]) -> str:
        padded = (cell.rjust(width) if index else cell.ljust(width)
                  for index, (cell, width) in enumerate(zip(cells, widths)))
        return f'| {" | ".join(padded)} |'

    rule = ['-' * width if index == 0 else '-' * (width - 1) + ':' for index, width in enumerate(widths)]
    return [line(first), line(rule), *map(line, others)]


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


def write_csv(path: Path, rows: Sequence[Row], latencies: Sequence[Latency | None], others: Sequence[Published],
              args: argparse.Namespace) -> None:
    records, where = [], detector_environment(args.device, args.threads)
    for row, latency in zip(rows, latencies):
        record = dict(
            model=row.name, height=args.shape[0], width=args.shape[1], parameters=row.cost.parameters,
            linear_flops=row.cost.linear_flops, projection_flops=row.cost.projection_flops,
            scan_flops=row.cost.scan_flops, gflops_as_published=row.published_flops, **where)
        if latency:
            times = {f'latency_{name}_ms': milliseconds for name, milliseconds in latency._asdict().items()}
            record.update(times, latency_runs=args.runs)
        for name, verdict in (('parameters', row.parameters), ('gflops', row.flops)):
            if verdict is not None:
                record.update({f'{name}_agree': verdict.agrees, f'{name}_reason': verdict.reason})
        records.append({**record, **published_record(row.published)} if row.published else record)
    records += [{'model': row.title, **published_record(row)} for row in others]
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for record in records for name in record)))
        writer.writeheader()
        writer.writerows(records)


def published_record(row: Published) -> dict[str, str | None]:
    return dict(published_parameters_m=row.parameters, published_gflops=row.gflops, published_ap=row.ap,
                published_latency_ms=row.latency, source=row.source)


if __name__ == '__main__':
    run(main)
