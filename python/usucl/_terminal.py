"""Lines and tables for a terminal, in which no text of a file name or a label acts on it."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH_OF_A_PIPE = 100_000  # columns, where there is no terminal: a row is one line
USUAL_WIDTH = 80  # of a terminal that does not tell
GAP = 2  # columns between two of a table
EDGES = 4  # columns more at the sides of a framed table, and between
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

    made = Console(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
        width=_width(sys.stderr if stderr else sys.stdout),
    )
    # Rich would stop the program as after an error, where the reader has only seen enough.
    made.on_broken_pipe = _broken_pipe  # type: ignore[method-assign]
    return made


def _broken_pipe() -> None:
    raise BrokenPipeError


def _width(stream: TextIO) -> int:
    if not stream.isatty():
        return WIDTH_OF_A_PIPE
    try:
        here = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # a notebook's stream has no terminal
        here = 0
    chosen = os.environ.get("COLUMNS", "")
    return int(chosen) if chosen.isdecimal() and int(chosen) else here or USUAL_WIDTH


def say(line: object = "", *, stderr: bool = False) -> None:
    """Prints one line as it is, its control characters escaped."""
    try:
        console(stderr=stderr).print(visible(line))
    except ImportError:  # the line may be about what is not installed
        print(visible(line), file=sys.stderr if stderr else sys.stdout)


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
    right = [column in numbers for column in columns]
    short = [(brief or {}).get(column, column) for column in columns]
    for headings, between, whole in (
        (columns, "  ", True),
        (columns, "\n", True),
        (short, "  ", True),
        (short, "\n", True),
        (short, "\n", False),
    ):
        texts = [[between.join(parts) for parts in row] for row in cells]
        if _least_width(headings, texts, right, whole) + EDGES * stderr <= shown.width:
            _print(shown, _table(headings, texts, right, stderr))
            break
    else:
        for number, row in enumerate(cells):
            if number and not stderr:
                shown.print()
            entry = [[c, "\n".join(parts)] for c, parts in zip(columns, row, strict=True)]
            _print(shown, _table(["", ""], entry, [False, False], stderr))
    if not stderr:
        shown.print()


def _print(shown: Console, made: Table) -> None:
    """Prints a table; a file gets no blanks at the ends of lines."""
    if shown.is_terminal:
        shown.print(made, soft_wrap=False)
        return
    with shown.capture() as captured:
        shown.print(made, soft_wrap=False)
    for line in captured.get().splitlines():
        shown.out(line.rstrip(), highlight=False)


def _parts(cell: object) -> list[str]:
    parts = cell if isinstance(cell, tuple) else (cell,)
    return ["" if part is None else visible(part) for part in parts]


def _table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool], framed: bool
) -> Table:
    from rich.box import HEAVY_HEAD, SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(
        box=HEAVY_HEAD if framed else SIMPLE_HEAD,
        show_header=any(headings),
        show_edge=framed,
        padding=(0, 1) if framed else (0, 1, 0, 0),
    )
    for heading, is_number in zip(headings, right, strict=True):
        justify: Literal["left", "right"] = "right" if is_number else "left"
        made.add_column(Text(visible(heading)), justify=justify, no_wrap=is_number, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def _least_width(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[bool],
    whole: bool,
) -> int:
    """Returns the width of a table in which only texts between words and long names are broken.

    If it is ``whole``, nothing is.
    """
    from rich.cells import cell_len

    total = 0
    for heading, is_number, cells in zip(headings, right, _columns(rows, len(right)), strict=True):
        lines = [line for cell in cells for line in cell.split("\n")]
        if whole or is_number:
            total += max(map(cell_len, [heading, *lines])) + GAP
            continue
        stacked = [line for cell in cells if "\n" in cell for line in cell.split("\n")]
        longest = max(map(cell_len, ["", *stacked, *(word for c in cells for word in c.split())]))
        total += max(min(longest, LEAST_WIDTH), *map(cell_len, ["", *heading.split()])) + GAP
    return total


def _columns(rows: Sequence[Sequence[str]], number: int) -> list[list[str]]:
    return [[row[i] for row in rows] for i in range(number)]
