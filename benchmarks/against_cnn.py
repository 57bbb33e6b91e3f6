"""Times a network against a CNN of equal accuracy, interleaved in one process: ``python -m benchmarks.against_cnn``.

Mamba YOLO-T over YOLOv8-S on the CPU: inference and training steps in float32 and bfloat16, each ratio with its goal.
The networks are those of ``benchmarks.models``: for inference after ``mmmamba.deploy.fuse``, for training after
``fuse_for_training``, which both networks get. ``--busy N`` measures while N other processes compute.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch

from benchmarks.models import BFLOAT16_AUTOCAST, BFLOAT16_WEIGHTS, FLOAT32, Precision, inference, training_step
from benchmarks.networks import NETWORKS
from mmmamba.analysis.measure import Effort, Row, Run, Table, cpu_flags, interleaved, with_environment, write_csv

CPU = torch.device('cpu')
PAIR = ('mamba-yolo_t', 'yolov8_s')
"""What the goals are for: the network that is measured, and its baseline."""
FLAGS = ('avx2', 'avx512f', 'avx512_bf16', 'avx512_fp16', 'amx_bf16')
"""The instruction sets that decide how fast float32 and bfloat16 are, as Linux calls them."""
REACHED, MISSED, NO_GOAL = 'C0', 'C1', 'C7'


class Setting(NamedTuple):
    """What the two networks do, and the goal: the ratio of their times that shall not be exceeded."""

    training: bool
    precision: Precision
    batch: int
    side: int
    goal: float | None

    def run(self, name: str) -> Run:
        if self.training:
            return training_step(name, self.batch, self.side, CPU, self.precision, fused=True)
        return inference(name, self.batch, self.side, CPU, self.precision)


SETTINGS: Mapping[str, Setting] = MappingProxyType({
    'inference': Setting(False, FLOAT32, 1, 640, 0.9),
    'inference-batch': Setting(False, FLOAT32, 4, 640, 0.85),
    'inference-bf16': Setting(False, BFLOAT16_WEIGHTS, 1, 640, 1.5),
    'inference-autocast': Setting(False, BFLOAT16_AUTOCAST, 1, 640, 1.5),
    'training': Setting(True, FLOAT32, 4, 320, 1.0),
    'training-autocast': Setting(True, BFLOAT16_AUTOCAST, 4, 320, 1.4),
})

COMPUTE = """
import os, sys
import torch
torch.set_num_threads(1)
x = torch.rand(512, 512)
print('computing', flush=True)
while os.getppid() == int(sys.argv[1]):  # nobody else would end it if the benchmark were killed
    x @ x
"""


@contextmanager
def busy_machine(number: int) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """Has so many other processes, of one thread each, compute matrix products; they end with the context.

    Raises:
        RuntimeError: One of them ended before it computed.
    """
    command = [sys.executable, '-c', COMPUTE, str(os.getpid())]
    others: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(number):
            # In their own sessions, an interrupt from the keyboard reaches this process alone, which ends them.
            others.append(subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True))
        for other in others:
            if not other.stdout.readline():
                raise RuntimeError('A process that keeps the machine busy has ended.')
        yield others
    finally:
        for other in others:
            other.kill()
        for other in others:
            other.communicate()


def measure(name: str, setting: Setting, networks: Sequence[str], effort: Effort) -> Row:
    """Returns the row of a setting: the times of both networks, and their ratio."""
    network, baseline = networks
    timings = interleaved({network: setting.run(network), baseline: setting.run(baseline)}, CPU, effort)
    row = {'setting': name, 'precision': setting.precision.name, 'batch': setting.batch, 'side': setting.side,
           'network': network, 'baseline': baseline}
    for prefix, timing in (('', timings[network]), ('baseline_', timings[baseline])):
        columns = {**timing.columns(), 'images_per_s': round(1e3 * setting.batch / timing.median, 2)}
        row.update({prefix + column: value for column, value in columns.items()})
    row['ratio'] = round(timings[network].median / timings[baseline].median, 3)
    if setting.goal is not None:
        row['goal'] = setting.goal
    return row


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws a bar for the ratio of each row, with its goal; rows have their environment and may come from a file."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(8, 2 + 0.5 * len(rows)), layout='constrained')
    axis = figure.subplots()
    ratios, places = [float(row['ratio']) for row in rows], range(len(rows))
    goals = [float(row['goal']) if row.get('goal') else None for row in rows]
    colors = [NO_GOAL if goal is None else REACHED if ratio <= goal else MISSED for ratio, goal in zip(ratios, goals)]
    axis.barh(places, ratios, height=0.6, color=colors)
    axis.set_yticks(places, [_label(row) for row in rows], fontsize=9)
    axis.invert_yaxis()
    # What is to the right of a bar starts after its goal, too.
    ends = [max(ratio, goal or 0) for ratio, goal in zip(ratios, goals)]
    for place, end, row in zip(places, ends, rows):
        text = f'{float(row["ratio"]):.2f}  ({_ms(row["median_ms"])} over {_ms(row["baseline_median_ms"])} ms)'
        axis.annotate(text, (end, place), (6, 0), textcoords='offset points', va='center', fontsize=9,
                      bbox={'color': 'white', 'pad': 1})
    axis.set_xlim(0, 1.5 * max(1, *ends))
    axis.axvline(1, color='black', linewidth=0.8, linestyle=':')
    marked = [(goal, place) for goal, place in zip(goals, places) if goal is not None]
    legend = [Patch(color=color, label=label) for color, label in (
        (REACHED, 'goal reached'), (MISSED, 'goal missed'), (NO_GOAL, 'no goal')) if color in colors]
    if marked:
        x, y = zip(*marked)
        legend.append(axis.vlines(x, [place - 0.4 for place in y], [place + 0.4 for place in y], color='black',
                                  linewidth=2.5, label='goal'))
    figure.legend(handles=legend, loc='outside lower center', ncols=len(legend), frameon=False, fontsize=9)
    first = rows[0]
    axis.set_xlabel(f'time of {first["network"]} over time of {first["baseline"]}')
    figure.suptitle(_machine(first), fontsize=9)
    axis.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=130)


def _machine(row: Row) -> str:
    return (f'{row["device"]} ({row["cpu_flags"]})\n'
            f'threads: {row["threads"]}, other processes: {row["busy"]}, PyTorch {row["torch"]}')


def _label(row: Row) -> str:
    kind = 'training step' if row['setting'].startswith('training') else 'inference'
    return f'{kind}, {row["precision"]}\n{row["side"]}², batch {row["batch"]}'


def _ms(value: float | str) -> str:
    return f'{float(value):.3g}' if float(value) < 100 else f'{float(value):.0f}'


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', nargs=2, choices=NETWORKS, default=PAIR, metavar=('NETWORK', 'BASELINE'),
                        help=f'of {", ".join(NETWORKS)} (default: {" ".join(PAIR)})')
    parser.add_argument('--settings', nargs='+', choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument('--batch', type=int, help='of every setting, instead of its own, which its goal is for')
    parser.add_argument('--side', type=int, help='of the square images, a multiple of 32, likewise')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--seconds', type=float, default=30, help='for each setting')
    parser.add_argument('--busy', type=int, default=0, metavar='N', help='other processes that compute meanwhile')
    parser.add_argument('--csv', type=Path, help='file to write')
    parser.add_argument('--plot', type=Path, help='picture to draw (needs matplotlib)')
    args = parser.parse_args(arguments)
    if args.networks[0] == args.networks[1]:
        parser.error('--networks must be two')
    if (args.batch is not None and args.batch < 1) or (args.side is not None and (args.side % 32 or args.side < 32)):
        parser.error('--side must be a multiple of 32 and --batch positive')
    if args.busy < 0:
        parser.error('--busy must not be negative')
    return args


def chosen_settings(args: argparse.Namespace) -> dict[str, Setting]:
    """Returns the settings by name; one that is changed, or of other networks, has no goal."""
    chosen = {}
    for name in args.settings:
        own = SETTINGS[name]
        setting = own._replace(batch=args.batch or own.batch, side=args.side or own.side)
        same = setting == own and tuple(args.networks) == PAIR
        chosen[name] = setting if same else setting._replace(goal=None)
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    torch.set_num_threads(args.threads)
    effort, rows = Effort(args.seconds, least=5), []
    with busy_machine(args.busy):
        for name, setting in chosen_settings(args).items():
            rows.append({**measure(name, setting, args.networks, effort), 'busy': args.busy})
    text = Table.of_records(rows).text()
    rows = [{**row, 'cpu_flags': cpu_flags(FLAGS)} for row in with_environment(rows, CPU)]
    print(f'{_machine(rows[0])}\n{text}')
    if args.csv:
        write_csv(args.csv, rows)
    if args.plot:
        plot(rows, args.plot)


if __name__ == '__main__':
    main()
