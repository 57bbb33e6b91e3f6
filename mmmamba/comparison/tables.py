"""The tables of a comparison, for readers and for programs."""
from __future__ import annotations

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mmmamba.analysis.measure import Table
from mmmamba.comparison.detection_errors import ERROR_TYPES
from mmmamba.comparison.result import AP
from mmmamba.comparison.summary import ConfigSummary, mean_and_spread

_METRICS: Mapping[str, str] = MappingProxyType({
    'AP50': f'{AP}_50', 'AP75': f'{AP}_75', 'AP small': f'{AP}_s', 'AP medium': f'{AP}_m', 'AP large': f'{AP}_l',
})


def ap_table(summaries: Sequence[ConfigSummary], cpu_time: bool) -> Table:
    """Makes a row for each config with a finished run, and one for each reason that runs of it failed for, below it.

    Args:
        summaries: The configs.
        cpu_time: Whether minutes are those of the CPU instead of wall clock.
    """
    header = ('config', 'parameters', 'AP', 'AP by seed', *_METRICS, 'CPU minutes' if cpu_time else 'minutes', 'runs')
    rows = []
    for summary in summaries:
        if summary.finished:
            rows.append(_ap_row(summary, cpu_time))
        for failure, seeds in _failures(summary).items():
            text = f'seed{"s" * (len(seeds) > 1)} {", ".join(map(str, seeds))} {failure}'
            rows.append([summary.name, *['–'] * (len(header) - 2), text])
    return Table(header, rows, words=('config', 'AP by seed', 'runs'))


def _failures(summary: ConfigSummary) -> dict[str, list[int]]:
    """Reason → the seeds that failed for it."""
    seeds = defaultdict(list)
    for run in summary.runs:
        if run.result.failure is not None:
            seeds[run.result.failure].append(run.result.seed)
    return seeds


def _ap_row(summary: ConfigSummary, cpu_time: bool) -> list[str]:
    runs = summary.finished
    aps = summary.values(AP)
    parameters = next((f'{run.parameters / 1e6:.2f} M' for run in runs if run.parameters is not None), '–')
    minutes = [run.history[-1].cpu_minutes if cpu_time else run.history[-1].minutes for run in runs if run.history]
    return [summary.name, parameters, f'{mean_and_spread(aps, 100)} (n = {len(aps)})',
            ', '.join(f'{run.seed}: {100 * run.metrics[AP]:.1f}' for run in runs),
            *(mean_and_spread(summary.values(key), 100) for key in _METRICS.values()),
            mean_and_spread(minutes), f'{len(runs)} of {len(summary.runs)} finished']


def error_table(summaries: Sequence[ConfigSummary]) -> Table:
    """Makes a row for each config with detections: how many errors a run has, and what they cost in points of AP50."""
    rows = []
    for summary in summaries:
        errors = [run.errors for run in summary.analysed]
        if errors:
            rows.append([summary.name, str(len(errors)), f'{100 * statistics.mean(item.ap50 for item in errors):.1f}',
                         *(f'{statistics.mean(item.counts[kind] for item in errors):.0f} '
                           f'({100 * statistics.mean(item.costs[kind] for item in errors):+.1f})'
                           for kind in ERROR_TYPES)])
    return Table(('config', 'n', 'AP50', *ERROR_TYPES), rows, words=('config', ))


def runs_csv(summaries: Sequence[ConfigSummary]) -> str:
    """Writes a line for each run with all its numbers: AP in [0, 1], or -1 where there are no such objects.

    What a run does not have is empty.
    """
    metrics = {'ap': AP, **{name.lower().replace(' ', '_'): key for name, key in _METRICS.items()}}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['config', 'seed', 'failure', 'parameters', *metrics, 'epochs', 'minutes', 'cpu_minutes',
                     *ERROR_TYPES, *(f'{kind}_ap50_cost' for kind in ERROR_TYPES)])
    for summary in summaries:
        for run in summary.runs:
            result = run.result
            last = result.history[-1] if result.history else None
            writer.writerow([
                result.name, result.seed, result.failure, result.parameters,
                *(result.metrics.get(key) for key in metrics.values()),
                *((last.epoch, f'{last.minutes:.2f}', f'{last.cpu_minutes:.2f}') if last else (None, ) * 3),
                *(run.errors.counts[kind] if run.errors else None for kind in ERROR_TYPES),
                *(f'{run.errors.costs[kind]:.5f}' if run.errors else None for kind in ERROR_TYPES),
            ])
    return out.getvalue()
