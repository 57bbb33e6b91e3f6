"""The report of a tested detector: one page that opens without a server, and its numbers as CSV and JSON."""
from __future__ import annotations

import html
import math
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mmmamba.analysis.compare.evaluation import RECALLS
from mmmamba.analysis.compare.tide import ERROR_TYPES
from mmmamba.analysis.measure.records import write_csv
from mmmamba.analysis.measure.tables import Table
from mmmamba.analysis.page import page
from mmmamba.analysis.report import gallery, svg
from mmmamba.analysis.report.history import History, read_history
from mmmamba.analysis.report.matching import SCORES, ImageOutcome
from mmmamba.analysis.report.results import EvaluatedRun, Results, analyse
from mmmamba.files import write_atomically, write_json

_MIXED_UP = 10  # pairs of classes that are listed
_FEW_CLASSES = 12  # that tables show at a glance
_DENSE = 0.5  # share from which a cell's text is light
_STYLE = """
main section { margin-top: 2.75rem; } main section h2 { margin-top: 0; }
.facts { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); margin: 1.5rem 0; }
.facts div { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem; }
.facts b { display: block; font-size: 1.65rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.facts span { color: var(--muted); font-size: .85rem; }
.facts .chosen { border-color: var(--accent); border-width: 2px; }
section > .card + .card { margin-top: 1rem; }
figure { margin: 0; }
pre { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem;
  overflow-x: auto; font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
summary { cursor: pointer; color: var(--muted); margin-bottom: .5rem; }
.total td { border-top: 2px solid var(--line); font-weight: 600; }
.matrix { width: auto; }
.matrix td { text-align: center; min-width: 3.4rem; padding: .5rem; border: 1px solid var(--surface);
  background: rgb(37 99 201 / var(--share)); }
.matrix td.dense { color: #fff; } .matrix td.none { color: var(--muted); background: none; }
.matrix th { vertical-align: bottom; } .matrix th.words { padding-right: .8rem; }
.matrix tbody th { vertical-align: middle; }
.tall { max-height: 44rem; padding: 0; }
.tall table { border-collapse: separate; border-spacing: 0; }
.tall th { background: var(--surface); position: sticky; top: 0; z-index: 1; padding: .45rem .8rem; }
.tall th:first-child, .tall td:first-child { padding-left: 1.15rem; position: sticky; left: 0; }
.tall td:first-child { background: var(--surface); }
.tall td:last-child, .tall th:last-child { padding-right: 1.15rem; }
.tall thead th:first-child { z-index: 2; } .tall tbody th { top: auto; }
.tall .matrix td { min-width: 1.9rem; padding: .15rem .2rem; font-size: .75rem; position: static; border: 0; }
.tall .matrix thead th { writing-mode: vertical-rl; transform: rotate(180deg); padding: .5rem .2rem; }
.tall .matrix thead th:first-child { writing-mode: initial; transform: none; }
.tall .matrix thead { position: sticky; top: 0; z-index: 2; background: var(--surface); }
.tall .matrix th { font-size: .75rem; padding-block: .15rem; }
.tall .matrix .none { color: transparent; }
.bars > div { display: grid; grid-template: "name bar value" auto / 24rem 1fr 4rem;
  gap: .2rem 1rem; align-items: center; padding: .3rem 0; }
.bars .name { grid-area: name; } .bars .value { grid-area: value; text-align: right; }
.bars .bar { grid-area: bar; background: var(--line); border-radius: 4px; height: .8rem; overflow: hidden; }
.bars i { display: block; height: 100%; background: var(--accent); border-radius: 4px; }
.bars small { display: block; color: var(--muted); }
@media (max-width: 48rem) { .bars > div { grid-template: "name value" auto "bar bar" auto / 1fr max-content; } }
.below { margin-top: .75rem; }
"""


def write_report(run: EvaluatedRun, folder: Path, pictures: bool = True) -> Results:
    """Writes ``report.html``, ``report.json`` and ``classes.csv``.

    Args:
        run: What was tested.
        folder: Where to write; made if need be.
        pictures: Whether the images with most errors, and what may lack a label, are shown, or only listed.

    Returns:
        What the report shows.

    Raises:
        InputError: The detections or one of the images that are shown cannot be read.
    """
    results = analyse(run)
    history = read_history(Path(run.checkpoint).parent)
    write_csv(folder / 'classes.csv', results.class_records())
    write_json(folder / 'report.json', _numbers(run, results), indent=2)
    write_atomically(folder / 'report.html', compose(run, results, history, pictures).encode())
    return results


def compose(run: EvaluatedRun, results: Results, history: History | None, pictures: bool) -> str:
    """Returns the page."""
    objects, images = int(results.matrix[:-1].sum()), len(run.truth['images'])
    parts = [
        f'<p class="lead">{html.escape(run.checkpoint)} on {images} images with {objects} objects of '
        f'{len(results.names)} {"class" if len(results.names) == 1 else "classes"}</p>',
        _facts(run, results),
        _section('Which score to use', _scores(run, results)),
        _section('Classes', _classes(results)),
        _section('Confusion matrix', _matrix(results)),
        _section('Precision and recall', _precision_recall(results)),
        _section('What goes wrong', _errors(results)),
        _section('Sizes of objects', _sizes(run, results)),
        _section('Images with most errors', _worst(run, results, pictures)),
        _section('Objects without a label?', _unlabelled(run, results, pictures)),
    ]
    if history:
        parts.append(_section('Training', _training(history)))
    parts.append(_section('How this was made', _origin(run)))
    return page(run.title, '\n'.join(parts), _STYLE + svg.STYLE + gallery.STYLE)


def _section(title: str, body: str) -> str:
    return f'<section><h2>{html.escape(title)}</h2>\n{body}</section>'


def _facts(run: EvaluatedRun, results: Results) -> str:
    facts = [(name, percent(run.metric(f'bbox_mAP{ending}')), note) for name, ending, note in (
        ('AP', '', 'IoU 0.50 to 0.95'), ('AP50', '_50', 'IoU 0.50'), ('AP75', '_75', 'IoU 0.75'))]
    if run.has_masks:
        facts += [('Mask AP', percent(run.metric('segm_mAP')), 'IoU 0.50 to 0.95'),
                  ('Mask AP50', percent(run.metric('segm_mAP_50')), 'IoU 0.50')]
    summary, least = results.summary(), f'score > {results.score:.2f}'
    facts += [('Precision', percent(summary['precision']), least), ('Recall', percent(summary['recall']), least)]
    cells = [f'<div><span>{name}</span><b>{value}</b><span>{note}</span></div>' for name, value, note in facts]
    best = f'{results.score:.2f}' if summary['f1'] > 0 else '–'
    cells.append(f'<div class="chosen"><span>Best score</span><b>{best}</b><span>F1 {percent(summary["f1"])}</span>'
                 '</div>')
    return f'<div class="facts">{"".join(cells)}</div>'


def _scores(run: EvaluatedRun, results: Results) -> str:
    if not results.summary()['f1'] > 0:
        said = '<p>No detection finds an object at any score.</p>'
    else:
        call = shlex.join(['mmmamba', 'predict', run.config, run.checkpoint, 'SOURCE',
                           '--score', f'{results.score:.2f}'])
        said = (f'<p>F1, the mean over classes, is best where detections with a score above '
                f'<b>{results.score:.2f}</b> count. Take a higher one for fewer false detections, a lower one to miss '
                f'fewer objects.</p>'
                f'<pre>{html.escape(call)}</pre>')
    curves = results.curves
    charts = [svg.chart(svg.class_lines(results.names, SCORES, values, mean, 'mean of classes'), 'least score', name,
                        mark=results.score)
              for name, values, mean in (('F1', curves.f1, curves.mean_f1),
                                         ('precision', curves.precision, curves.mean_precision),
                                         ('recall', curves.recall, curves.mean_recall))]
    return said + _cards(charts)


def _classes(results: Results) -> str:
    header = ('class', 'objects', 'detections', 'AP', 'AP50', 'precision', 'recall', 'F1', 'its best score')
    shares = ('ap', 'ap50', 'precision', 'recall', 'f1')
    rows = [[record['class'], str(record['objects']), str(record['detections']),
             *(percent(record[key]) for key in shares),
             '–' if record['own_best_score'] is None else f'{record["own_best_score"]:.2f}']
            for record in results.class_records()]
    if len(rows) > 1:
        summary = results.summary()
        known = ~np.isnan(results.ap)
        rows.append(['all', str(results.matrix[:-1].sum()), str(results.matrix[:, :-1].sum()),
                     percent(results.ap[known].mean()), percent(results.ap50[known].mean()),
                     *(percent(summary[key]) for key in shares[2:]), f'{results.score:.2f}'])
    table = Table(header, rows, words=('class',)).html()
    if len(rows) > 1:
        head, _, tail = table.rpartition('<tr>')
        table = f'{head}<tr class="total">{tail}'
    return (f'<p>Detections, precision, recall and F1 are for scores above {results.score:.2f} and IoU 0.5; in '
            f'percent, like AP. The last column is the score at which the class by itself has its best F1.</p>'
            f'<div class="{_card(results)}">{table}</div>')


def _matrix(results: Results) -> str:
    names = [*map(html.escape, results.names), 'background']
    heads = ''.join(f'<th scope="col">{name}</th>' for name in names)
    rows: list[str] = []
    for name, row in zip(names, results.matrix):
        cells = [_cell(int(count), int(count) / max(int(row.sum()), 1)) for count in row]
        if name == names[-1] and len(rows) == len(results.names):
            cells[-1] = '<td class="none"></td>'
        rows.append(f'<tr><th scope="row" class="words">{name}</th>{"".join(cells)}</tr>')
    text = (f'<p>Rows are objects, columns what they are detected as, at IoU 0.5 and scores above '
            f'{results.score:.2f}. Shades are shares of a row. The last column has missed objects, the last row '
            f'detections of nothing and duplicates.</p>')
    table = (f'<div class="{_card(results)}"><table class="matrix"><thead><tr>'
             f'<th class="words">object \\ detection</th>{heads}</tr></thead>'
             f'<tbody>{"".join(rows)}</tbody></table></div>')
    return text + table + (_mixed_up(results) if len(results.names) > _FEW_CLASSES else '')


def _card(results: Results) -> str:
    """Returns the CSS classes of the box around a table, which scrolls by itself if there are many classes."""
    return 'card scroll tall' if len(results.names) > _FEW_CLASSES else 'card scroll'


def _cell(count: int, share: float) -> str:
    if not count:
        return '<td class="none">0</td>'
    dense = ' class="dense"' if share >= _DENSE else ''
    return f'<td{dense} style="--share: {share:.2f}" title="{share:.1%} of the row">{count}</td>'


def _mixed_up(results: Results) -> str:
    """Lists the pairs of classes that are taken for each other most often, which a large matrix hides."""
    classes = results.matrix[:-1, :-1]
    pairs = sorted(((int(classes[row, column]), results.names[row], results.names[column])
                    for row, column in zip(*classes.nonzero()) if row != column), reverse=True)[:_MIXED_UP]
    table = Table(('object', 'detected as', 'times'), [[row, column, str(count)] for count, row, column in pairs],
                  words=('object', 'detected as'))
    return f'<div class="card scroll">{table.html()}</div>' if pairs else ''


def _precision_recall(results: Results) -> str:
    known = results.precisions[0] > -1
    curves = results.precisions[:, known].T
    names = [f'{name}, AP50 {percent(ap)}' for name, ap, has in zip(results.names, results.ap50, known) if has]
    lines = svg.class_lines(names, RECALLS, curves, curves.mean(axis=0), 'mean of classes')
    return ('<p>At IoU 0.5, over all scores. The area below a line is the AP50.</p>'
            + _cards([svg.chart(lines, 'recall', 'precision')]))


def _errors(results: Results) -> str:
    errors = results.errors
    most = max(*errors.costs.values(), 0.01)
    rows = [(f'{kind}<small>{html.escape(meaning)}</small>', max(errors.costs[kind], 0) / most,
             f'{100 * errors.costs[kind]:+.1f}<small>{errors.counts[kind]}</small>')
            for kind, meaning in ERROR_TYPES.items()]
    return ('<p>How many points of AP50 would be gained if one kind of error alone were repaired, and below it the '
            'number of such errors. Counted are the 100 best detections of each image and class, whatever their '
            'scores. The kinds are those of TIDE (arXiv 2008.08115).</p>' + _bars(rows))


def _sizes(run: EvaluatedRun, results: Results) -> str:
    bounds = {'small': 'below 32² pixels', 'medium': '32² to 96²', 'large': 'above 96²'}
    rows = []
    for name, (objects, found) in results.sizes.items():
        share = found / objects if objects else float('nan')
        rows.append((f'{name}<small>{bounds[name]}; {found} of {objects} found</small>', 0 if not objects else share,
                     f'{percent(share)}<small>AP {percent(run.metric(f"bbox_mAP_{name[0]}"))}</small>'))
    return (f'<p>Share of the objects that are found with scores above {results.score:.2f} at IoU 0.5, by their area '
            f'in the original image.</p>{_bars(rows)}')


def _worst(run: EvaluatedRun, results: Results, pictures: bool) -> str:
    shown = gallery.worst(results.outcomes)
    if not shown:
        return '<p>There is no image with an error.</p>'
    wrong = sum(result.errors > 0 for result in results.outcomes)
    lead = f'{len(shown)} of {wrong} images with errors, at scores above {results.score:.2f}.'
    if not pictures:
        names = {image['id']: image['file_name'] for image in run.truth['images']}
        rows = [[names[result.image], *map(str, _counts(result).values())] for result in shown]
        table = Table(('image', *(name.replace('_', ' ') for name in _counts(shown[0]))), rows, words=('image',))
        return f'<p>{lead}</p><div class="card scroll">{table.html()}</div>'
    return (f'<p>{lead} Each is shown with its objects, <span class="key right">found</span> or '
            '<span class="key wrong">not</span>, then with the detections, <span class="key right">right</span> or '
            '<span class="key wrong">wrong</span>. The class of a box is shown under the pointer.</p>'
            + gallery.gallery(shown, run.truth, run.images))


def _unlabelled(run: EvaluatedRun, results: Results, pictures: bool) -> str:
    shown = results.unlabelled[:gallery.CROPS]
    if not shown:
        return (f'<p>Every detection with a score above {results.score:.2f} has an IoU of 0.1 or more with an object.'
                '</p>')
    lead = (f'Detections with a score above {results.score:.2f} and an IoU below 0.1 with every object: '
            f'{len(results.unlabelled)}. Look at the {len(shown)} with the highest scores. If there is an object '
            'after all, its label is missing, which lowers AP here and harms training.')
    if not pictures:
        images, names = gallery.by_id(run.truth)
        rows = [[images[item['image_id']]['file_name'], names[item['category_id']], f'{item["score"]:.2f}',
                 ', '.join(f'{value:.0f}' for value in item['bbox'])] for item in shown]
        table = Table(('image', 'class', 'score', 'x, y, width, height'), rows, words=('image', 'class'))
        return f'<p>{lead}</p><div class="card scroll">{table.html()}</div>'
    return f'<p>{lead}</p>{gallery.crops(shown, run.truth, run.images)}'


def _training(history: History) -> str:
    end = max([*history.epochs, *history.validated])
    losses = sorted(history.losses)
    top = 1.1 * losses[min(len(losses) - 1, math.ceil(0.98 * len(losses)))]  # the first steps may be far above
    charts = [svg.chart([svg.Line('training loss', history.epochs, history.losses, svg.COLOURS[0])], 'epoch', 'loss',
                        x_end=end, y_end=top)]
    if history.validated:
        lines = [svg.Line(name, history.validated, values, colour, dots=True)
                 for name, values, colour in (('AP', history.ap, svg.COLOURS[0]),
                                              ('AP50', history.ap50, svg.COLOURS[1]))]
        best = int(np.nanargmax(history.ap))
        charts.append(svg.chart(lines, 'epoch', 'validation', x_end=end, mark=history.validated[best]))
        said = (f'<p>The best AP on the validation set is {percent(history.ap[best])}, after epoch '
                f'{history.validated[best]}.</p>')
    else:
        said = ''
    return said + _cards(charts)


def _origin(run: EvaluatedRun) -> str:
    table = Table(('setting', 'value'), list(run.settings.items()), words=('setting', 'value')).html()
    return (f'<pre>{html.escape(run.command)}</pre><div class="card scroll">{table}</div>'
            '<p class="muted below">Next to this page are classes.csv and report.json; the detections, in the '
            f'format of COCO results, are in {html.escape(str(run.detections))}.</p>'
            f'<details><summary>The whole config</summary><pre>{html.escape(run.config_text)}</pre></details>')


def _cards(bodies: Iterable[str]) -> str:
    return f'<div class="cards">{"".join(f"<div class=card>{body}</div>" for body in bodies)}</div>'


def _bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """Draws a bar for each name, share of the whole width, and value; names and values are HTML."""
    cells = ''.join(f'<div><div class="name">{name}</div><div class="bar"><i style="width: {100 * share:.1f}%"></i>'
                    f'</div><div class="value number">{value}</div></div>' for name, share, value in rows)
    return f'<div class="card bars">{cells}</div>'


def percent(share: float | None) -> str:
    """Writes a share in [0, 1] as percent with one digit; a dash if there is none."""
    return '–' if share is None or math.isnan(share) else f'{100 * share:.1f}'


def _numbers(run: EvaluatedRun, results: Results) -> dict:
    return {
        'config': run.config, 'checkpoint': run.checkpoint, 'command': run.command, 'metrics': dict(run.metrics),
        'best_score': results.score, 'at_best_score': results.summary(), 'classes': results.class_records(),
        'confusion_matrix': {'rows_and_columns': [*results.names, 'background'], 'counts': results.matrix.tolist()},
        'errors': {kind: {'count': results.errors.counts[kind], 'ap50_cost': results.errors.costs[kind]}
                   for kind in ERROR_TYPES},
        'sizes': {name: {'objects': objects, 'found': found} for name, (objects, found) in results.sizes.items()},
        'unlabelled': [{key: item[key] for key in ('image_id', 'category_id', 'bbox', 'score')}
                       for item in results.unlabelled],
        'worst_images': [{'image_id': result.image, **_counts(result)} for result in gallery.worst(results.outcomes)],
    }


def _counts(result: ImageOutcome) -> dict[str, int]:
    return {'found': len(result.found), 'missed': len(result.missed), 'false': len(result.false),
            'wrong_class': len(result.confused)}
