"""What a page needs so that it is read without a network, and by those who do not see it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser

VOID = {"br", "img", "meta", "wbr"}
FETCHING = {"audio", "base", "embed", "form", "iframe", "link", "object", "script", "video"}


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}  # by the tag around them
        self.open: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes another tag")

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data


def faults(text: str) -> list[str]:
    """Returns what a page lacks; empty for one that can be read as it should."""
    page = _Page(text)
    return [*page.faults, *_frame(page), *_fetched(page), *_names(page), *_tables(page)]


def _frame(page: _Page) -> Iterator[str]:
    count = Counter(tag for tag, _ in page.tags)
    yield from (
        f"{count[tag]} <{tag}>" for tag in ("html", "title", "h1", "main") if count[tag] != 1
    )
    if not any(tag == "html" and at.get("lang") for tag, at in page.tags):
        yield "the page names no language"
    if not any(at.get("name") == "viewport" for _, at in page.tags):
        yield "a phone shows the page small"
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    for above, below in zip([0, *levels], levels, strict=False):
        if below > above + 1:
            yield f"a heading of level {below} follows one of level {above}"
    ids = [at["id"] for _, at in page.tags if "id" in at]
    yield from (f"two elements have the id {name}" for name, n in Counter(ids).items() if n > 1)
    for tag, at in page.tags:
        if tag == "a" and at.get("href", "")[1:] not in ids:
            yield f"a link leads to {at.get('href')}"


def _fetched(page: _Page) -> Iterator[str]:
    for tag, at in page.tags:
        if tag in FETCHING:
            yield f"<{tag}> fetches or runs something"
        yield from (f"<{tag}> runs {name}" for name in at if name.startswith("on"))
        for name in ("src", "srcset", "href"):
            if name in at and not at[name].startswith(("data:image/", "#")):
                yield f"<{tag}> fetches {at[name]}"
    if re.search(r"url\(|@import", "".join(page.texts.get("style", []))):
        yield "the style fetches something"


def _names(page: _Page) -> Iterator[str]:
    for tag, at in page.tags:
        if tag == "img" and not at.get("alt", "").strip():
            yield "a picture has no text in its place"
        is_reached = at.get("tabindex") == "0" or tag == "nav" or at.get("role") == "group"
        if is_reached and not at.get("aria-label", "").strip():
            yield f"<{tag}> has no name"
    for tag in ("title", "h1", "h2", "h3", "a", "summary", "caption", "th"):
        yield from (f"<{tag}> is empty" for text in page.texts.get(tag, []) if not text.strip())


def _tables(page: _Page) -> Iterator[str]:
    if len(page.texts.get("caption", [])) != len(page.texts.get("table", [])):
        yield "a table has no caption"
    part, first = "", False
    for tag, at in page.tags:
        if tag in ("thead", "tbody"):
            part = tag
        elif tag == "th" and at.get("scope") != ("col" if part == "thead" else "row"):
            yield f"a heading in <{part}> has scope {at.get('scope')}"
        if first and part == "tbody" and tag != "th":
            yield "a row has no heading"
        first = tag == "tr"
