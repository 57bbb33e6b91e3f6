"""The report of a data check as a page: verdict, counts, findings, and pictures of the suspects."""
from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmmamba.analysis.data_check.check import CheckedData
from mmmamba.analysis.data_check.findings import ERROR, KINDS, NOTE, WARNING, DataReport, Finding, shown
from mmmamba.analysis.data_check.suspects import Suspects
from mmmamba.analysis.data_check.text_report import by_frequency, count_by_split, split_table
from mmmamba.analysis.page import page

PICTURES = 8
"""At most, of a kind of findings."""
_LINES = 8  # of a kind without pictures
_MOST_CLASSES = 30
_TONES = {ERROR: 'bad', WARNING: 'warn', NOTE: 'muted'}
_STYLE = """
.chart { display: grid; grid-template-columns: fit-content(38%) 1fr max-content; gap: .35rem .75rem;
  align-items: center; font-size: .9rem; font-variant-numeric: tabular-nums; }
.chart > span:nth-child(3n + 1) { overflow-wrap: anywhere; min-width: 3.5rem; }
.chart > span:nth-child(3n) { text-align: right; color: var(--muted); font-size: .8rem; line-height: 1.25; }
.charts { grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); }
.bars { display: grid; gap: 2px; }
.bars i { height: 7px; border-radius: 2px; }
.train { background: var(--accent); } .val { background: var(--accent-2); } .test { background: var(--accent-3); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .85rem; color: var(--muted);
  margin: 1.25rem 0 .75rem; }
.legend i { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .4em; }
.kinds { list-style: none; margin: 0; padding-block: .5rem; }
.kinds li { display: grid; grid-template-columns: 5.2rem 1fr max-content; gap: .75rem; padding: .45rem 0;
  border-bottom: 1px solid var(--line); align-items: baseline; }
.kinds li:last-child { border-bottom: 0; }
.kinds .chip { justify-self: start; }
@media (max-width: 34rem) { .kinds li { grid-template-columns: 5.2rem 1fr; row-gap: 0; }
  .kinds .number { grid-column: 2; font-size: .85rem; } }
.suspects { margin-top: 1rem; scroll-margin-top: 1rem; }
.suspects h3 { display: flex; flex-wrap: wrap; gap: .3rem .7rem; align-items: baseline; }
.suspects h3 .number { font-weight: 400; font-size: .9rem; }
.gallery { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }
.gallery.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); }
figure { margin: 0; min-width: 0; }
.frame { display: flex; gap: 4px; aspect-ratio: 4 / 3; background: var(--ground); border-radius: 6px;
  overflow: hidden; }
.pairs .frame { aspect-ratio: 8 / 3; }
.frame svg { flex: 1 1 0; min-width: 0; width: 100%; height: 100%; }
figcaption { font-size: .83rem; line-height: 1.4; margin-top: .4rem; color: var(--muted); overflow-wrap: anywhere; }
.lines { margin: .25rem 0 .5rem; padding-left: 1.1rem; font-size: .9rem; }
.lines li { overflow-wrap: anywhere; margin: .2rem 0; }
.more { font-size: .85rem; color: var(--muted); margin: .75rem 0 0; }
"""


def html_report(checked: CheckedData) -> str:
    """Returns the page; it loads nothing, and all names in it are taken literally."""
    report = checked.report
    tone = 'bad' if not report.can_train else 'warn' if 'warning' in report.verdict else 'good'
    images = sum(item.images for item in report.splits.values())
    read = 'headers of images alone were read' if report.quick else 'every image was decoded'
    lead = (f'{report.format or "Of no known format"} in <code>{html.escape(report.path)}</code>: '
            f'{images:,} images, {read}; sizes are judged at {report.image_size[0]} x {report.image_size[1]}.')
    body = [f'<p class="lead">{lead}</p>', *(f'<p class="muted">{html.escape(text)}</p>' for text in report.remarks),
            f'<div class="verdict {tone}">{html.escape(report.verdict)}</div>']
    groups = report.groups()
    if groups:
        body += ['<h2>Findings</h2>', _overview(groups)]
    if report.splits:
        body += ['<h2>What is in it</h2>', f'<div class="card scroll">{split_table(report).html()}</div>',
                 _charts(report)]
    if groups:
        body.append('<h2>Suspects</h2>')
        suspects = Suspects(checked)
        body += [_section(severity, kind, found, suspects) for severity, kind, found in groups]
    return page(f'Data check: {shown(Path(report.path).name or report.path)}', '\n'.join(body), _STYLE)


def _overview(groups: Sequence[tuple[str, str, Sequence[Finding]]]) -> str:
    rows = ''.join(f'<li><span class="chip {_TONES[severity]}">{severity}</span>'
                   f'<a href="#{severity}-{kind}">{html.escape(KINDS[kind].title)}</a>'
                   f'<span class="number muted">{count_by_split(found)}</span></li>'
                   for severity, kind, found in groups)
    return f'<ul class="kinds card">{rows}</ul>'


def _section(severity: str, kind: str, found: Sequence[Finding], suspects: Suspects) -> str:
    """Returns what there is to see of a kind of findings: pictures where it has some, and lines otherwise."""
    pictured = []
    if any(item.file for item in found[:PICTURES]):
        pictured = [(item, suspects.draw(item)) for item in found[:PICTURES]]
    with_pictures = [(item, pictures) for item, pictures in pictured if pictures]
    parts = [f'<h3>{html.escape(KINDS[kind].title[:1].upper() + KINDS[kind].title[1:])}'
             f'<span class="chip {_TONES[severity]}">{severity}</span>'
             f'<span class="muted number">{count_by_split(found)}</span></h3>',
             f'<p class="muted">{html.escape(KINDS[kind].advice)}</p>']
    if with_pictures:
        pairs = ' pairs' if any(item.other for item, _ in with_pictures) else ''
        figures = ''.join(f'<figure><div class="frame">{"".join(pictures)}</div>'
                          f'<figcaption>{html.escape(item.sentence)}</figcaption></figure>'
                          for item, pictures in with_pictures)
        parts.append(f'<div class="gallery{pairs}">{figures}</div>')
    drawn = {id(item) for item, _ in with_pictures}
    lines = [item for item in found[:_LINES] if id(item) not in drawn]
    if lines:
        parts.append(f'<ul class="lines">{"".join(f"<li>{html.escape(item.sentence)}</li>" for item in lines)}</ul>')
    left_out = len(found) - len(drawn) - len(lines)
    if left_out:
        parts.append(f'<p class="more">{left_out:,} more {"is" if left_out == 1 else "are"} in report.json.</p>')
    return f'<section class="card suspects" id="{severity}-{kind}">{"".join(parts)}</section>'


def _charts(report: DataReport) -> str:
    classes = by_frequency(report)
    rest = f'The {_MOST_CLASSES} most frequent of {len(classes)}.' if len(classes) > _MOST_CLASSES else ''
    splits = report.splits
    charts = [
        ('Objects of each class', {name: item.classes for name, item in splits.items()}, rest,
         classes[:_MOST_CLASSES]),
        ('Size of objects', {name: item.scaled_sides for name, item in splits.items()},
         f'Square root of the area in pixels, at {report.image_size[0]} x {report.image_size[1]}.', None),
        ('Width / height of objects', {name: item.aspect_ratios for name, item in splits.items()}, '', None),
        ('Objects an image', {name: item.crowding for name, item in splits.items()}, '', None)]
    legend = ''.join(f'<span><i class="{name}"></i>{name}</span>' for name in splits)
    cards = ''.join(f'<div class="card"><h3>{title}</h3>{f"<p class=muted>{note}</p>" if note else ""}'
                    f'{_bars(counts, rows)}</div>' for title, counts, note, rows in charts)
    return (f'<p class="legend">{legend}<span>bars: share of the split</span></p>'
            f'<div class="cards charts">{cards}</div>')


def _bars(counts: Mapping[str, Mapping[str, int]], rows: Sequence[str] | None) -> str:
    """Returns a bar of each split in each row, as long as its share of the split's total; all of them if None."""
    totals = {name: max(sum(numbers.values()), 1) for name, numbers in counts.items()}
    longest = max((number / totals[name] for name, numbers in counts.items() for number in numbers.values()),
                  default=0) or 1
    cells = []
    for row in rows or list(next(iter(counts.values()))):
        shares = {name: numbers[row] / totals[name] / longest for name, numbers in counts.items()}
        bars = ''.join(f'<i class="{name}" style="width: {share:.1%}"></i>' for name, share in shares.items())
        figures = ' · '.join(f'{numbers[row]:,}' for numbers in counts.values())
        cells.append(f'<span>{html.escape(shown(row))}</span><span class="bars">{bars}</span><span>{figures}</span>')
    return f'<div class="chart">{"".join(cells)}</div>'
