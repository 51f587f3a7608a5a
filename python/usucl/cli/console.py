"""The output of the commands: tables and lines on standard output, problems on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

WIDTH_OF_A_PIPE = 140  # columns, where there is no terminal


def console(*, stderr: bool = False) -> Console:
    """Returns a console of the terminal's width, or wide enough for a table in a file or a pipe."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        stderr=stderr, highlight=False, soft_wrap=True, width=None if terminal else WIDTH_OF_A_PIPE
    )


def say(line: str = "") -> None:
    """Prints a line without markup, because file names may hold brackets."""
    console().print(line, markup=False)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    numbers: Sequence[str] = (),
) -> None:
    """Prints a table; the columns in ``numbers`` are aligned to the right, and None is empty."""
    made = Table(
        box=SIMPLE_HEAD,
        show_header=any(columns),
        title=title,
        title_justify="left",
        title_style="bold",
    )
    for column in columns:
        right = column in numbers
        made.add_column(column, justify="right" if right else "left", no_wrap=right)
    for row in rows:
        made.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console().print(made, soft_wrap=False)


def progress(unit: str) -> Progress:
    """Returns a progress bar on standard error, disabled if that is not a terminal."""
    shown = console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} " + unit, markup=False),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=shown, disable=not shown.is_terminal, transient=True)
