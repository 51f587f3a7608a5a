"""Lines and tables for a terminal, in which no text of a file name or a label acts on it."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

from rich.box import HEAVY_HEAD, SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH_OF_A_PIPE = 140  # columns, where there is no terminal
_JOINERS = "\u200c\u200d"  # within words of some scripts; they change the shape of letters only


def visible(text: object) -> str:
    r"""Returns ``text`` on one line, with its control characters written as ``\x1b``.

    These are also line ends, marks of direction, and bytes of file names that are no characters.
    """
    return "".join(c if _is_shown(c) else c.encode("unicode_escape").decode() for c in str(text))


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) in ("Zs", "Co") or char in _JOINERS


def console(*, stderr: bool = False) -> Console:
    """Returns a console of the terminal's width, or wide enough for a table in a file or a pipe.

    It takes no text for markup or emoji. What is printed must be :func:`visible`.
    """
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
    stderr: bool = False,
) -> None:
    """Prints a table; the columns in ``numbers`` are aligned to the right, and None is empty.

    On standard error, among messages, it has a frame.
    """
    made = Table(
        box=HEAVY_HEAD if stderr else SIMPLE_HEAD,
        show_header=any(columns),
        title=None if title is None else Text(visible(title), "bold"),
        title_justify="left",
    )
    for column in columns:
        right = column in numbers
        justify: Literal["left", "right"] = "right" if right else "left"
        made.add_column(Text(visible(column)), justify=justify, no_wrap=right)
    for row in rows:
        made.add_row(*(Text("" if cell is None else visible(cell)) for cell in row))
    console(stderr=stderr).print(made, soft_wrap=False)
