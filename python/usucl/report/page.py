"""The page around the sections of the report: one file that fetches nothing.

Text becomes HTML in :func:`escape` alone; what is HTML already has the type :class:`Html`.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from usucl._terminal import visible

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { --ink: #1f2a37; --muted: #6b7785; --rule: #d8dee5; --ground: #f6f8fa;
        --good: #0f766e; --bad: #b4325a; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 56px 24px 72px; max-width: 1008px; color: var(--ink);
       font: 15px/1.55 system-ui, "Segoe UI", "Helvetica Neue", "Liberation Sans", sans-serif; }
h1, p, bdi { overflow-wrap: anywhere; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 20px; margin: 56px 0 10px; padding-top: 14px; border-top: 1px solid var(--rule); }
h3 { font-size: 15px; margin: 28px 0 4px; }
p { margin: 0 0 12px; max-width: 46em; }
.lead { font-size: 17px; margin-top: 20px; }
.muted, .note { color: var(--muted); }
.note { font-size: 13px; }
img { display: block; max-width: 100%; height: auto; margin: 18px 0 10px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 14px;
         margin: 24px 0 8px; }
.card { background: var(--ground); border-radius: 8px; padding: 14px 16px 12px; }
.card b { display: block; font-size: 32px; line-height: 1.25; font-weight: 600;
          font-variant-numeric: tabular-nums; }
.card .note { line-height: 1.45; }
.higher { color: var(--good); } .lower { color: var(--bad); } .open { color: var(--muted); }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; margin: 10px 0 6px;
        font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--muted); padding: 6px 10px 6px 0;
     border-bottom: 1px solid var(--rule); vertical-align: bottom; }
td { padding: 7px 10px 7px 0; border-bottom: 1px solid #edf0f3; vertical-align: top; }
td.number { white-space: nowrap; }
td small, .card small { color: var(--muted); font-size: 12.5px; font-weight: 400; }
td small { display: block; }
td .note { max-width: 30em; line-height: 1.4; margin-top: 2px; }
pre { background: var(--ground); border-radius: 8px; padding: 14px 16px; font-size: 12px;
      line-height: 1.5; columns: 2; column-gap: 32px; white-space: pre-wrap;
      overflow-wrap: anywhere; }
@media (max-width: 640px) { pre { columns: 1; } .wide { overflow-x: auto; } }
@media print { body { padding: 0; max-width: none; font-size: 11pt; }
  h2, h3 { break-after: avoid; } img, tr, .card { break-inside: avoid; }
  .card, pre { border: 1px solid var(--rule); } }
</style>
</head>
<body>
$body
</body>
</html>
""")


class Html(str):
    """Text that is HTML already."""


def escape(text: object) -> Html:
    """Returns HTML that shows a text, its invisible characters as escapes."""
    return text if isinstance(text, Html) else Html(html.escape(visible(text)))


def isolated(text: str) -> Html:
    """Returns HTML for a name, in which the direction of its script stays."""
    return Html(f"<bdi>{escape(text)}</bdi>")


def page(title: str, body: str) -> str:
    """Returns the HTML document with ``body`` inside."""
    return _PAGE.substitute(title=escape(title), body=body)


def section(title: str, *parts: str) -> str:
    """Returns a section with a heading."""
    return "\n".join([f"<h2>{escape(title)}</h2>", *parts])


def paragraph(text: str, style: str = "") -> str:
    """Returns a paragraph of text, with a CSS class."""
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def picture(path: Path, description: str) -> str:
    """Returns a PNG embedded in the page."""
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{content}">'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of texts; a cell of HTML that starts with ``<td`` is taken as it is."""
    cells = "".join(f"<th>{escape(title)}</th>" for title in head)
    lines = ["<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows]
    return (
        f'<div class="wide"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(content: str) -> str:
    own = isinstance(content, Html) and content.startswith("<td")
    return content if own else f"<td>{escape(content)}</td>"
