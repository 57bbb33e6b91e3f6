"""One report of a comparison: markdown, a static page, plots and a CSV file; all text in it is taken literally."""
from __future__ import annotations

import html
import io
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from mmmamba.analysis.compare.evaluation import read_truth
from mmmamba.analysis.compare.results import AP, Comparison, ConfigSummary, mean_and_spread, summarise
from mmmamba.analysis.compare.tide import ERROR_TYPES
from mmmamba.analysis.measure.records import csv_text
from mmmamba.analysis.measure.tables import Table, literal_markdown
from mmmamba.analysis.page import page
from mmmamba.errors import InputError
from mmmamba.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORE_THRESHOLD = 0.3  # of the detections in pictures
_AP, _EPOCHS, _TIME, _PRECISION_RECALL, _ERRORS, _PICTURES = _PNGS = (
    'ap.png', 'ap_over_epochs.png', 'ap_over_time.png', 'precision_recall.png', 'errors.png', 'pictures.png')
_METRICS: Mapping[str, str] = MappingProxyType({
    'AP50': f'{AP}_50', 'AP75': f'{AP}_75', 'AP small': f'{AP}_s', 'AP medium': f'{AP}_m', 'AP large': f'{AP}_l',
})
_STYLE = """
pre { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem;
  overflow-x: auto; }
table { display: block; overflow-x: auto; margin-bottom: 1rem; }
td:not(.words) { white-space: nowrap; }
img { margin-bottom: 1rem; border-radius: 6px; }
"""


def require_matplotlib() -> None:
    """Notices before any training that a report could not be drawn.

    Raises:
        InputError: If matplotlib is not installed.
    """
    if find_spec('matplotlib') is None:
        raise InputError('the report needs matplotlib: pip install mmmamba[demo]')


def write_report(comparison: Comparison, folder: Path, *, pictures: bool = True, cpu_time: bool = False) -> None:
    """Writes README.md, index.html, runs.csv and PNGs; the same comparison gives the same bytes.

    A PNG of an earlier report that this one does not have is deleted.

    Args:
        comparison: The runs; there need not be a finished one.
        folder: Where to write; made if need be.
        pictures: Whether to draw images of the data set, which its licence may not let you pass on.
        cpu_time: Whether times are the CPU's instead of wall clock, for a machine that other work shared.

    Raises:
        InputError: If the annotations, detections or images cannot be read, or matplotlib is missing.
    """
    require_matplotlib()
    truth = read_truth(comparison.annotations, comparison.classes)
    summaries = summarise(comparison.runs, truth)
    figures = _draw(comparison, summaries, truth, pictures, cpu_time)
    document = _compose(comparison, summaries, figures, cpu_time)

    for name in _PNGS:
        if name in figures:
            png = io.BytesIO()
            figures[name].savefig(png, format='png', dpi=100)
            write_atomically(folder / name, png.getvalue())
        else:
            (folder / name).unlink(missing_ok=True)
    for name, text in (('runs.csv', runs_csv(summaries)), ('README.md', document.markdown()),
                       ('index.html', document.html())):
        write_atomically(folder / name, text.encode())


def _draw(comparison: Comparison, summaries: Sequence[ConfigSummary], truth: dict, pictures: bool,
          cpu_time: bool) -> dict[str, Figure]:
    """Draws what there is something to show of: file name → figure."""
    from mmmamba.analysis.compare import plots

    figures = {}
    if any(summary.finished for summary in summaries):
        figures[_AP] = plots.draw_ap(summaries)
    if any(summary.history(lambda validation: validation.ap).size for summary in summaries):
        figures[_EPOCHS] = plots.draw_ap_over_epochs(summaries)
        figures[_TIME] = plots.draw_ap_over_time(summaries, cpu_time)
    if any(summary.analysed for summary in summaries):
        figures[_PRECISION_RECALL] = plots.draw_precision_recall(summaries)
        figures[_ERRORS] = plots.draw_errors(summaries)
        if pictures:
            figures[_PICTURES] = plots.draw_pictures(summaries, truth, comparison.images, SCORE_THRESHOLD)
    return figures


def _compose(comparison: Comparison, summaries: Sequence[ConfigSummary], figures: dict[str, Figure],
             cpu_time: bool) -> Document:
    results: list[Part] = [Text(
        'AP is COCO’s, in percent: mean over the finished seeds ± sample standard deviation. Minutes are of training '
        f'alone{", in CPU time of its process" if cpu_time else ""}. Every run by itself: runs.csv.'
    )]
    if not any(summary.finished for summary in summaries):
        results.append(Text('No run has finished.'))
    if summaries:
        results.append(ap_table(summaries, cpu_time))
    if _AP in figures:
        results.append(Picture(_AP, 'AP and AP50 of each config: a dot a seed, a stroke at the mean'))
    sections = [Section('Average precision', results)]

    if _EPOCHS in figures:
        sections.append(Section('Over training', [
            Text('AP on the validation set after the epochs that all finished seeds of a config were validated at: '
                 'the mean, and a band from the least seed to the largest.'),
            Picture(_EPOCHS, 'AP against epochs'), Picture(_TIME, 'AP against time')]))
    if _ERRORS in figures:
        sections.append(Section('Precision and recall', [
            Text('Mean over classes and seeds.'), Picture(_PRECISION_RECALL, 'Precision against recall')]))
        sections.append(Section('Errors', [
            Text('The kinds are TIDE’s (Bolya et al. 2020, arXiv 2008.08115), a wrong class with a poor box being '
                 '“both”, a kind of its own. Where several fit, it is the first of duplicate, classification, '
                 'localisation, both; the package tidecv differs in details. '
                 'Counted are, per run, the 100 best detections of each image and class, which are those of COCO’s '
                 'AP, however low their scores; in brackets, the points of AP50 that would be gained were this kind '
                 'alone repaired.'),
            Table(('kind', 'meaning'), list(ERROR_TYPES.items()), words=('kind', 'meaning')),
            error_table(summaries),
            Picture(_ERRORS, 'Cost of each kind of error')]))
    if _PICTURES in figures:
        sections.append(Section('Side by side', [
            Text(f'Images spread over the test set: the truth, and detections of score {SCORE_THRESHOLD} or more of '
                 'each config’s first finished seed.'),
            Picture(_PICTURES, 'The same images with the truth and with each config’s detections')]))
    conditions = Table(('condition', 'value'), list(comparison.conditions.items()), words=('condition', 'value'))
    return Document(comparison.title, [
        Text('Made by'), Code(comparison.command), conditions,
        Text('In plots, names leave out what all configs’ names have in common.')
    ], sections)


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
    """Returns reason → the seeds that failed for it."""
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
    """Writes a line for each run with all its numbers: AP in [0, 1], or -1 if there are no such objects.

    What a run does not have is empty.
    """
    metrics = {'ap': AP, **{name.lower().replace(' ', '_'): key for name, key in _METRICS.items()}}
    columns = ('config', 'seed', 'failure', 'parameters', *metrics, 'epochs', 'minutes', 'cpu_minutes', *ERROR_TYPES,
               *(f'{kind}_ap50_cost' for kind in ERROR_TYPES))
    rows = []
    for run in (run for summary in summaries for run in summary.runs):
        result = run.result
        row: dict[str, Any] = dict(
            config=result.name, seed=result.seed, failure=result.failure, parameters=result.parameters)
        row.update({name: result.metrics.get(key) for name, key in metrics.items()})
        if result.history:
            last = result.history[-1]
            row.update(epochs=last.epoch, minutes=f'{last.minutes:.2f}', cpu_minutes=f'{last.cpu_minutes:.2f}')
        if run.errors:
            row.update(run.errors.counts)
            row.update({f'{kind}_ap50_cost': f'{cost:.5f}' for kind, cost in run.errors.costs.items()})
        rows.append(row)
    return csv_text(rows, columns)


class Part(Protocol):
    """Something that can be written both ways."""

    def markdown(self) -> str: ...

    def html(self) -> str: ...


@dataclass(frozen=True)
class Text:
    """A paragraph."""
    text: str

    def markdown(self) -> str:
        return literal_markdown(self.text)

    def html(self) -> str:
        return f'<p>{html.escape(self.text)}</p>'


@dataclass(frozen=True)
class Code:
    """Lines to be copied."""
    text: str

    def markdown(self) -> str:
        fence = '`' * max(3, 1 + max(map(len, re.findall('`+', self.text)), default=0))
        return f'{fence}bash\n{self.text}\n{fence}'

    def html(self) -> str:
        return f'<pre><code>{html.escape(self.text)}</code></pre>'


@dataclass(frozen=True)
class Picture:
    """An image file in the folder of the document."""
    file: str
    description: str

    def markdown(self) -> str:
        return f'![{literal_markdown(self.description)}]({self.file})'

    def html(self) -> str:
        return f'<img src="{html.escape(self.file)}" alt="{html.escape(self.description)}">'


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Document:
    """A title and what is below it: parts, then sections."""
    title: str
    parts: Sequence[Part]
    sections: Sequence[Section]

    def markdown(self) -> str:
        """Writes it in GitHub's markdown."""
        blocks = [f'# {literal_markdown(self.title)}', *(part.markdown() for part in self.parts)]
        for section in self.sections:
            blocks += [f'## {literal_markdown(section.title)}', *(part.markdown() for part in section.parts)]
        return '\n\n'.join(blocks) + '\n'

    def html(self) -> str:
        """Writes it as one page that loads nothing but its pictures."""
        lines = [part.html() for part in self.parts]
        for section in self.sections:
            lines += [f'<h2>{html.escape(section.title)}</h2>', *(part.html() for part in section.parts)]
        return page(self.title, '\n'.join(lines), _STYLE)
