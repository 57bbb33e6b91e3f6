"""The frame and the style of the pages that commands write: one file each, light and dark, narrow and wide.

A page loads nothing: neither scripts nor fonts nor pictures, which its body embeds. Classes for the body: ``lead`` (a
paragraph below the title), ``verdict good|warn|bad`` (a banner), ``card`` and ``cards`` (boxes in a grid that folds),
``scroll`` (around a wide table), ``chip good|warn|bad`` (a word in a pill), ``muted``, ``number``. Colours are
variables: ``var(--accent)``, ``--accent-2``, ``--accent-3``, ``--good``, ``--warn``, ``--bad``, ``--line``,
``--muted``.
"""
from __future__ import annotations

import html

_STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --surface: #fff; --text: #1b2430; --muted: #5d6a79;
  --line: #dfe4ea; --accent: #2563c9; --accent-2: #d9772b; --accent-3: #7a52c7; --good: #1a7f4b; --warn: #9a6200;
  --bad: #c0302c; }
@media (prefers-color-scheme: dark) { :root { --ground: #12161c; --surface: #1a2029; --text: #e4e9ef;
  --muted: #97a4b3; --line: #2c3542; --accent: #6ea3f5; --accent-2: #eb9a55; --accent-3: #b195f0; --good: #4fc98a;
  --warn: #e3ac45; --bad: #f2766f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: clamp(1.25rem, 3vw, 2.5rem) clamp(1rem, 3vw, 2rem) 4rem; }
h1 { font-size: clamp(1.5rem, 1.2rem + 1.4vw, 2.1rem); line-height: 1.2; letter-spacing: -.015em; margin: 0 0 .35rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; line-height: 1.3; letter-spacing: -.01em; margin: 2.75rem 0 .75rem; }
h3 { font-size: 1rem; line-height: 1.35; margin: 0 0 .35rem; }
p { margin: 0 0 .75rem; max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--accent); text-underline-offset: .15em; }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.muted, .lead { color: var(--muted); }
.number { font-variant-numeric: tabular-nums; }
.card { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.15rem; }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.verdict { margin: 1.5rem 0; padding: .95rem 1.15rem; border-radius: 10px; font-size: 1.05rem; font-weight: 600;
  border: 1px solid; border-left-width: 6px; background: var(--surface); overflow-wrap: anywhere; }
.good { color: var(--good); border-color: var(--good); }
.warn { color: var(--warn); border-color: var(--warn); }
.bad { color: var(--bad); border-color: var(--bad); }
.chip { display: inline-block; border: 1px solid currentColor; border-radius: 99px; padding: 0 .6em; font-size: .8rem;
  font-weight: 600; line-height: 1.55; white-space: nowrap; }
.scroll { overflow-x: auto; }
.scroll td { white-space: nowrap; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .8rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--muted); font-weight: 600; font-size: .85rem; white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
.words { text-align: left; }
svg, img { display: block; max-width: 100%; }
@media print { body { background: none; } .card { break-inside: avoid; } }
"""


def page(title: str, body: str, style: str = '') -> str:
    """Returns a page that is complete by itself.

    Args:
        title: Plain text: of the browser's tab, and the heading.
        body: HTML below the heading; whatever text it holds is escaped already.
        style: CSS that this page needs more than the others.
    """
    title = html.escape(title)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""
