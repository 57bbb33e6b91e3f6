"""The report of a data check for a terminal."""
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from textwrap import fill

from mmmamba.analysis.data_check.findings import KINDS, DataReport, Finding, shown
from mmmamba.analysis.measure.tables import Table

EXAMPLES = 3
_MOST_CLASSES = 20
_WIDTH = 100


def text_report(report: DataReport) -> str:
    """Returns the counts as tables, then the findings, a few of each kind; the verdict is left to the caller."""
    blocks = [f'{report.path}: {report.format or "of no known format"}']
    blocks += [f'note: {remark}' for remark in report.remarks]
    if report.splits:
        blocks += ['', split_table(report).text(), '', class_table(report, _MOST_CLASSES).text()]
        if len(report.classes) > _MOST_CLASSES:
            blocks.append(f'… and {len(report.classes) - _MOST_CLASSES} classes with fewer objects')
    for severity, kind, found in report.groups():
        blocks += ['', f'{severity}: {KINDS[kind].title} ({count_by_split(found)})']
        blocks += [f'    {item.sentence}' for item in found[:EXAMPLES]]
        if len(found) > EXAMPLES:
            blocks.append(f'    … and {len(found) - EXAMPLES} more')
        blocks.append(fill(KINDS[kind].advice, _WIDTH, initial_indent='    → ', subsequent_indent='      '))
    return '\n'.join(blocks)


def split_table(report: DataReport) -> Table:
    """Makes a row for each split."""
    rows = [[name, f'{item.images:,}', f'{item.empty:,}', f'{item.objects:,}',
             *(f'{number:,}' for number in item.sizes.values()), _span(list(item.image_sizes))]
            for name, item in report.splits.items()]
    return Table(('split', 'images', 'without objects', 'objects', 'small', 'medium', 'large', 'image sizes'), rows,
                 words=('split', 'image sizes'))


def class_table(report: DataReport, most: int) -> Table:
    """Makes a row for each class with the share of each split's objects, the most frequent classes first."""
    rows = []
    for name in by_frequency(report)[:most]:
        counts = [(item.classes[name], item.objects) for item in report.splits.values()]
        rows.append([shown(name), *(f'{count:,} ({count / max(total, 1):.1%})' for count, total in counts)])
    return Table(('class', *report.splits), rows, words=('class', ))


def by_frequency(report: DataReport) -> list[str]:
    """Returns the classes, those with most objects in all splits first."""
    return sorted(report.classes, key=lambda name: -sum(item.classes[name] for item in report.splits.values()))


def count_by_split(found: Sequence[Finding]) -> str:
    """Returns how many findings there are in each split."""
    counts = Counter(item.split for item in found)
    return ', '.join(f'{count:,} in {split}' if split else f'{count:,}' for split, count in counts.items())


def _span(sizes: Sequence[str]) -> str:
    return ', '.join(sizes) if len(sizes) < 3 else f'{sizes[0]}, {sizes[1]} and {len(sizes) - 2:,} others'
