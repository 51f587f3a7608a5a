"""The output of the commands: tables and lines on standard output, problems on standard error."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from usucl._terminal import console, say, table, visible

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = [
    "console",
    "hint",
    "is_quiet",
    "messages",
    "progress",
    "quietly",
    "say",
    "table",
    "visible",
]

_quiet = False


@contextlib.contextmanager
def quietly(quiet: bool) -> Iterator[None]:
    """Leaves out hints and progress, or does not."""
    global _quiet
    before, _quiet = _quiet, quiet
    try:
        yield
    finally:
        _quiet = before


def is_quiet() -> bool:
    """Returns whether hints and progress are left out."""
    return _quiet


def hint(line: str) -> None:
    """Prints a line that tells no result, such as what may be done next."""
    if not _quiet:
        say(line)


def progress(unit: str) -> Progress:
    """Returns a progress bar on standard error, disabled if that is not a terminal.

    Descriptions of its tasks must be :func:`visible`.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    shown = console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} " + unit, markup=False),
        TimeRemainingColumn(),
    )
    return Progress(
        *columns, console=shown, disable=_quiet or not shown.is_terminal, transient=True
    )


class _Log(logging.Handler):
    """Prints the messages of libraries that would otherwise write to standard error themselves."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), stderr=True)


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """Prints warnings and log messages as single lines, in whatever encoding the terminal has."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    root, log = logging.getLogger(), _Log(logging.WARNING)
    root.addHandler(log)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        root.removeHandler(log)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"usucl: warning: {' '.join(str(message).split())}", stderr=True)
