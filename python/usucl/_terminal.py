"""Lines and tables for a terminal, in which no text of a file name or a label acts on it."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH_OF_A_PIPE = 100_000  # columns, where there is no terminal: a row is one line
LEAST_WIDTH = 16  # columns for a text that is broken into lines
_JOINERS = "\u200c\u200d"  # within words of some scripts; they change the shape of letters only


def visible(text: object) -> str:
    r"""Returns ``text`` on one line, with its control characters written as ``\x1b``.

    These are also line ends, marks of direction, and bytes of file names that are no characters.
    """
    return "".join(c if _is_shown(c) else c.encode("unicode_escape").decode() for c in str(text))


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) in ("Zs", "Co") or char in _JOINERS


def console(*, stderr: bool = False) -> Console:
    """Returns a console of the terminal's width; a file or a pipe is as wide as what is printed.

    It takes no text for markup or emoji. What is printed must be :func:`visible`.
    """
    from rich.console import Console

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
        width=None if terminal else WIDTH_OF_A_PIPE,
    )


def say(line: object = "", *, stderr: bool = False) -> None:
    """Prints one line as it is, its control characters escaped."""
    console(stderr=stderr).print(visible(line))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    numbers: Sequence[str] = (),
    brief: Mapping[str, str] | None = None,
    stderr: bool = False,
) -> None:
    """Prints a table in which every cell is whole, if need be on several lines.

    Where it is too wide, headings become ``brief``, then the parts of a cell stand below each
    other, then long texts are broken, and at last each row is a list. In a pipe or a file a row is
    one line.

    Args:
        columns: headings; if all are empty, there is no line of them.
        rows: cells; None is empty, and a tuple has several parts.
        title: a line above it.
        numbers: the columns that are aligned to the right.
        brief: shorter headings.
        stderr: print to standard error, among messages, with a frame.
    """
    from rich.text import Text

    shown = console(stderr=stderr)
    if title is not None:
        shown.print(Text(visible(title), "bold"), soft_wrap=False)
    cells = [[_parts(cell) for cell in row] for row in rows]
    short = [(brief or {}).get(column, column) for column in columns]
    for headings, between in ((columns, "  "), (short, "  "), (short, "\n")):
        texts = [[between.join(parts) for parts in row] for row in cells]
        made = _table(headings, texts, [column in numbers for column in columns], stderr)
        least = _least_width(headings, texts, [column in numbers for column in columns])
        unlimited = shown.options.update(max_width=WIDTH_OF_A_PIPE)
        width = least if between == "\n" else shown.measure(made, options=unlimited).maximum
        if width <= shown.width:
            shown.print(made, soft_wrap=False)
            return
    for row in cells:
        entry = [[visible(c), "\n".join(parts)] for c, parts in zip(columns, row, strict=True)]
        shown.print(_table(["", ""], entry, [False, False], stderr), soft_wrap=False)


def _parts(cell: object) -> list[str]:
    parts = cell if isinstance(cell, tuple) else (cell,)
    return ["" if part is None else visible(part) for part in parts]


def _table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool], framed: bool
) -> Table:
    from rich.box import HEAVY_HEAD, SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=HEAVY_HEAD if framed else SIMPLE_HEAD, show_header=any(headings))
    for heading, is_number in zip(headings, right, strict=True):
        justify: Literal["left", "right"] = "right" if is_number else "left"
        made.add_column(Text(visible(heading)), justify=justify, no_wrap=is_number, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def _least_width(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]
) -> int:
    """Returns the width below which not even broken texts are legible."""
    from rich.cells import cell_len

    total = 0
    for i, is_number in enumerate(right):
        lines = [headings[i], *(line for row in rows for line in row[i].split("\n"))]
        longest = max(map(cell_len, lines))
        least = longest if is_number else max(cell_len(headings[i]), min(longest, LEAST_WIDTH))
        total += least + 2  # spaces at both sides
    return total + 2
