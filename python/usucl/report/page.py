"""The page around the sections of the report: one file that fetches nothing.

Text becomes HTML in :func:`escape` alone; what is HTML already has the type :class:`Html`.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from usucl._terminal import visible
from usucl.report.stylesheet import STYLESHEET


class Html(str):
    """Text that is HTML already."""


class Drawing(NamedTuple):
    """A figure for the page, as SVG: one for screens and paper, one for phones."""

    wide: bytes
    narrow: bytes


class Section(NamedTuple):
    """A part of the page with a heading, which the list of contents names."""

    title: str
    content: str

    @property
    def anchor(self) -> str:
        """The name that a link to the section has."""
        return re.sub(r"\W+", "-", self.title.lower())


def escape(text: object) -> Html:
    """Returns HTML that shows a text, its invisible characters as escapes."""
    return text if isinstance(text, Html) else Html(html.escape(visible(text)))


def isolated(text: str) -> Html:
    """Returns HTML for a name, in which the direction of its script stays."""
    return Html(f"<bdi>{escape(text)}</bdi>")


def breakable(name: str) -> Html:
    """Returns :func:`isolated` HTML for a name, which a line may end within at its strokes."""
    return Html(re.sub(r"([_\-/.])(?![^<]*>)", r"\1<wbr>", isolated(name)))


def page(title: str, head: str, sections: Sequence[Section] = ()) -> str:
    """Returns the HTML document: title, contents, what stands at the head, and the sections."""
    links = "".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in sections)
    contents = f'<nav class="contents" aria-label="Contents"><ol>{links}</ol></nav>'
    skip = '<a class="skip" href="#main">Skip the contents</a>'
    body = "\n".join(
        f'<section>\n<h2 id="{s.anchor}">{escape(s.title)}</h2>\n{s.content}\n</section>'
        for s in sections
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLESHEET}</style>\n</head>\n<body>\n"
        f"<header>\n{skip if sections else ''}<h1>{escape(title)}</h1>\n"
        f"{contents if sections else ''}\n</header>\n"
        f'<main id="main" tabindex="-1">\n{head}\n{body}\n</main>\n</body>\n</html>\n'
    )


def lines(*parts: str) -> str:
    """Returns the parts that are not empty, one below the other."""
    return "\n".join(filter(None, parts))


def heading(title: str) -> str:
    """Returns the heading of a part of a section."""
    return f"<h3>{escape(title)}</h3>"


def paragraph(text: str, style: str = "") -> str:
    """Returns a paragraph of text, with a CSS class; empty for an empty text."""
    if not text:
        return ""
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def items(texts: Iterable[str], style: str = "") -> str:
    """Returns a list of texts."""
    return f'<ul class="{style}">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>'


def alert(title: str, texts: Sequence[str], *, mild: bool = False) -> str:
    """Returns a box that says what is wrong; empty without texts."""
    style = "alert mild" if mild else "alert"
    box = f'<div class="{style}" role="note"><h2>{escape(title)}</h2>{items(texts)}</div>'
    return box if texts else ""


def terms(texts: Mapping[str, str], style: str) -> str:
    """Returns a list of terms, each with its text."""
    cells = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in texts.items())
    return f'<dl class="{style}">{cells}</dl>'


def code(text: str, name: str, style: str = "") -> str:
    """Returns a text as it is, line by line, with a name for those who do not see it."""
    content = chr(10).join(map(escape, text.strip().splitlines()))
    return f'<pre class="{style}" {_scrolled(name)}>{content}</pre>'


def folded(title: str, content: str, *, is_open: bool = False) -> str:
    """Returns content that a click on its title shows; on paper it is always shown."""
    state = " open" if is_open else ""
    return f"<details{state}><summary>{escape(title)}</summary>{content}</details>"


def picture(drawing: Drawing, description: str) -> str:
    """Returns a drawing embedded in the page."""
    return "".join(
        f'<img class="{kind} drawing" alt="{escape(description)}" src="{address(svg, "svg+xml")}">'
        for kind, svg in drawing._asdict().items()
    )


def address(content: bytes, kind: str) -> str:
    """Returns the address of a picture that is part of the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def table(name: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of texts; a cell of HTML that starts with ``<td`` is taken as it is.

    The first cell of each row is its heading, and the name is a caption for those who do not see
    where the table stands. One with many columns scrolls on a phone, while its first column stays.
    """
    cells = "".join(
        f'<th scope="col">{escape(title)}</th>' if title else "<td></td>" for title in head
    )
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(map(_cell, others))}</tr>\n'
        for first, *others in rows
    )
    content = (
        f'<table><caption class="unseen">{escape(name)}</caption>'
        f"<thead><tr>{cells}</tr></thead>\n<tbody>{body}</tbody></table>"
    )
    if len(head) <= 4:
        return f'<div class="wide small" {_scrolled(name)}>{content}</div>'
    hint = '<p class="hint">The table goes on to the right: scroll it sideways →</p>'
    return f'{hint}<div class="wide" {_scrolled(name)}>{content}</div>'


def _scrolled(name: str) -> str:
    """Returns the attributes by which a keyboard can scroll a part of the page."""
    return f'tabindex="0" role="group" aria-label="{escape(name)}"'


def _cell(content: str) -> str:
    own = isinstance(content, Html) and content.startswith("<td")
    return content if own else f"<td>{escape(content)}</td>"
