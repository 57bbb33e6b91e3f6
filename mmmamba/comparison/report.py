"""One report of a comparison: markdown, a static page, plots and a CSV file."""
from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mmmamba.analysis.measure import Table
from mmmamba.comparison.box_evaluation import read_truth
from mmmamba.comparison.detection_errors import ERROR_TYPES
from mmmamba.comparison.document import Code, Document, Part, Picture, Section, Text
from mmmamba.comparison.result import Comparison
from mmmamba.comparison.summary import ConfigSummary, summarise
from mmmamba.comparison.tables import ap_table, error_table, runs_csv
from mmmamba.errors import InputError
from mmmamba.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORE_THRESHOLD = 0.3  # of the detections in pictures
_AP, _EPOCHS, _TIME, _PRECISION_RECALL, _ERRORS, _PICTURES = _PNGS = (
    'ap.png', 'ap_over_epochs.png', 'ap_over_time.png', 'precision_recall.png', 'errors.png', 'pictures.png')


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
    from mmmamba.comparison import plots
    from mmmamba.comparison.pictures import draw_pictures

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
            figures[_PICTURES] = draw_pictures(summaries, truth, comparison.images, SCORE_THRESHOLD)
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
