"""Every check and every row of a GPU in one command of nine minutes: ``python -m benchmarks.gpu_suite --out DIR``.

It needs PyTorch and Triton and nothing else. Sections run in order of importance; one for which too little time is
left is skipped, and what is measured is written after every section, so that a run that is stopped loses one at most.
In DIR: report.txt, and rows of scans, networks, blocks and tilings as CSV files. The status is 1 if any failed.

``--device cpu --quick`` runs the same sections on small shapes, to see that they work.
"""
from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

import torch

from benchmarks import block_memory, breakdown, checks, models, scan, tuning
from benchmarks.contenders import able, is_unfused
from benchmarks.networks import NETWORKS
from benchmarks.shapes import Ceilings, scans_of
from mmmamba.analysis.measure import Effort, Row, Table, failure_line, with_environment, write_csv
from mmmamba.cli import device_named
from mmmamba.ops.dispatch import Backend
from mmmamba.ops.info import describe

CHECKS_SHARE = 0.25
"""Of the budget: the most that one list of checks takes. What a compiler needs for each dtype and pattern adds up."""


class Plan(NamedTuple):
    """What to measure, and how long."""

    effort: Effort
    sides: tuple[int, ...]
    sizes: tuple[str, ...]
    networks: tuple[str, ...]
    lengths: Sequence[int]
    batches: dict[str, int | None]


FULL = Plan(Effort(1.0, 5, 100), (640, 1280), ('t', 'b', 'l'), NETWORKS, block_memory.SIDES,
            dict.fromkeys(models.KINDS))
QUICK = Plan(Effort(0.1, 2, 3), (64,), ('t',), ('yolov8_s', 'mamba-yolo_t'), (4, 8, 16),
             dict.fromkeys(models.KINDS, 1))


class Suite:
    """A run: its device, its plan, its end, and what it has found so far."""

    def __init__(self, device: torch.device, out: Path, plan: Plan, ceilings: Ceilings | None, budget: float) -> None:
        self.device, self.out, self.plan, self.ceilings = device, out, plan, ceilings
        self.budget, self.start = budget, time.monotonic()
        self.failures: list[str] = []
        self.rows: dict[str, list[Row]] = {}
        self.backends = able(device)
        out.mkdir(parents=True, exist_ok=True)
        (out / 'report.txt').write_text('', encoding='utf-8')

    def left(self) -> float:
        """Seconds until the budget is spent."""
        return self.budget - (time.monotonic() - self.start)

    def say(self, text: str) -> None:
        """Adds to the report, and prints."""
        print(text, flush=True)
        with (self.out / 'report.txt').open('a', encoding='utf-8') as file:
            file.write(text + '\n')

    def fail(self, text: str) -> None:
        self.failures.append(text)
        self.say(f'FAILED {text}')

    def save(self, name: str, rows: list[Row]) -> None:
        """Adds rows to DIR/``name``.csv and to the report."""
        self.rows.setdefault(name, []).extend(rows)
        write_csv(self.out / f'{name}.csv', with_environment(self.rows[name], self.device))
        self.say(Table.of_records(rows).text())
        for row in rows:
            if 'failure' in row:
                self.fail(str(row))

    def fused(self) -> list[Backend]:
        return [backend for backend in self.backends.values() if not is_unfused(backend)]

    def without_torch(self) -> dict[str, Backend]:
        """Returns the contenders without PyTorch's operations alone, which take seconds for a long scan."""
        return {name: backend for name, backend in self.backends.items() if name != 'torch'}


class Section(NamedTuple):
    """A part of the suite; it starts only while at least ``least`` seconds are left."""

    name: str
    least: float
    run: Callable[[Suite], None]


def check(make: Callable[..., Iterator[checks.Case]], subject: str | Backend, suite: Suite) -> None:
    cases = list(make(subject, suite.device))
    outcome = checks.run_cases(cases, min(CHECKS_SHARE * suite.budget, suite.left()))
    for text in outcome.failures:
        suite.fail(text)
    suite.say(f'{outcome.passed} passed, {len(outcome.failures)} failed, {outcome.left} not run for want of time')


def scan_rows(size: str, side: int, dtype: str, suite: Suite) -> None:
    backends = suite.backends if (size, side) == ('t', suite.plan.sides[0]) else suite.without_torch()
    suite.save('scan', scan.measure_models(
        [size], [side], backends, suite.device, [dtype], 1, suite.plan.effort, suite.ceilings))


def network_rows(kind: str, mode: str, suite: Suite) -> None:
    batch = suite.plan.batches[kind] or models.default_batch(kind, suite.device)
    effort = suite.plan.effort._replace(seconds=len(suite.plan.networks) * suite.plan.effort.seconds)
    suite.save('networks', models.measure(
        kind, mode, suite.plan.networks, batch, suite.plan.sides[0], suite.device, effort))


def block_rows(suite: Suite) -> None:
    plan = suite.plan
    suite.save('blocks', block_memory.measure(
        plan.sides[0], plan.lengths, suite.without_torch(), suite.device, plan.effort))


def breakdown_rows(name: str, suite: Suite) -> None:
    suite.save('breakdown', breakdown.measure(name, suite.plan.sides[0], suite.device, passes=5, most=25))


def tiling_rows(size: str, suite: Suite) -> None:
    for shape in scans_of(size, suite.plan.sides[0]):
        suite.save('tilings', tuning.tilings(shape, suite.device, suite.left))


def sections(suite: Suite) -> list[Section]:
    """Lists all sections in order of importance."""
    plan = suite.plan
    first, rest = plan.sides[0], plan.sides[1:]
    found = [Section(f'{backend.name} against float64', 10, partial(check, checks.agreement_cases, backend))
             for backend in suite.fused()]
    found += [Section(f'scans of {size}, {first}, fp32', 20, partial(scan_rows, size, first, 'fp32'))
              for size in plan.sizes]
    found += [Section(f'latency, {mode}', 20, partial(network_rows, 'latency', mode))
              for mode in models.modes_of('latency', suite.device)]
    found.append(Section('blocks and lengths', 15, block_rows))
    found.append(Section('where the time goes', 5, partial(breakdown_rows, 'mamba-yolo_t')))
    for backend in suite.fused():
        found.append(Section(f'{backend.name} in PyTorch', 20, partial(check, checks.integration_cases, backend)))
        found.append(Section(f'{backend.name}, sequences', 10, partial(check, checks.sequence_cases, backend)))
    found.append(Section('network', 5, partial(check, checks.network_cases, 'mamba-yolo_t')))
    found += [Section(f'scans of {plan.sizes[0]}, {first}, {dtype}', 20, partial(
        scan_rows, plan.sizes[0], first, dtype)) for dtype in scan.DTYPES if dtype != 'fp32']
    found += [Section(kind, 25, partial(network_rows, kind, 'eager')) for kind in ('training', 'throughput')]
    found += [Section(f'scans of {size}, {side}, fp32', 25, partial(scan_rows, size, side, 'fp32'))
              for side in rest for size in plan.sizes]
    if suite.device.type == 'cuda':
        found += [Section(f'tilings for {size}', 30, partial(tiling_rows, size)) for size in plan.sizes]
    return found


def summarise(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Sums up: ranges over all fused scans, each network's latency, a block's memory; without what was not measured.

    Args:
        rows: Of the files ``scan``, ``networks`` and ``blocks``.
    """
    lines = []
    fused = [row for row in rows.get('scan', ()) if not row['unfused'] and 'height' in row and 'failure' not in row]
    for backend, mode, dtype in dict.fromkeys((row['backend'], row['mode'], row['dtype']) for row in fused):
        for kind in scan.PASSES:
            own = [row for row in fused if (row['backend'], row['mode'], row['dtype'], row['pass'])
                   == (backend, mode, dtype, kind)]
            lines += [f'{backend}, {mode}, {dtype}, {kind}: {column} {min(values):g} to {max(values):g}'
                      for column in ('unfused_over_this', 'this_over_bound')
                      if (values := [row[column] for row in own if column in row])]
    lines += [f'{row["network"]}, {row["kind"]}, {row["mode"]}: {row["median_ms"]:g} ms'
              for row in rows.get('networks', ()) if row['kind'] == 'latency']
    lines += [f'{row["what"]}, {row["backend"]}: {row["of_unfused"]:g} of the unfused memory'
              for row in rows.get('blocks', ()) if 'of_unfused' in row]
    lines += [f'{row["what"]}, {row["backend"]}: time {row["median_ms"]:g}, memory {row["peak_mib"]:g}'
              for row in rows.get('blocks', ()) if row['what'].startswith('exponent')]
    return lines


def run(suite: Suite) -> None:
    """Runs the sections; one that raises is a failure, and the next runs."""
    suite.say(describe())
    for section in sections(suite):
        left = suite.left()
        if left < section.least:
            suite.say(f'== {section.name}: skipped, {left:.0f} s are left and it takes {section.least:.0f} at least')
            continue
        suite.say(f'== {section.name} ({left:.0f} s left)')
        try:
            section.run(suite)
        except Exception as error:  # whatever it is, the other sections do not depend on it
            suite.fail(f'{section.name}: {failure_line(error)}')
            traceback.print_exc()
    suite.say('\n'.join(['== summary', *summarise(suite.rows)]))
    suite.say(f'== {len(suite.failures)} failures, {suite.budget - suite.left():.0f} s')
    for text in suite.failures:
        suite.say(text)


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, required=True, help='folder for the report and the rows')
    parser.add_argument('--device', type=device_named, default='cuda')
    parser.add_argument('--budget', type=float, default=530, help='seconds')
    parser.add_argument('--quick', action='store_true', help='small shapes, to see that everything works')
    scan.add_ceilings(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    ceilings = Ceilings.of(args.device, args.bandwidth, args.clock) if args.device.type == 'cuda' else None
    suite = Suite(args.device, args.out, QUICK if args.quick else FULL, ceilings, args.budget)
    run(suite)
    sys.exit(bool(suite.failures))


if __name__ == '__main__':
    main()
