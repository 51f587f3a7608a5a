"""The output of the commands: tables and lines on standard output, problems on standard error."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator

from usucl._terminal import console, say, table, visible

__all__ = ["console", "hint", "is_quiet", "messages", "quietly", "say", "table", "visible"]

_quiet = False


@contextlib.contextmanager
def quietly(quiet: bool) -> Iterator[None]:
    """Leaves out hints, or does not."""
    global _quiet
    before, _quiet = _quiet, quiet
    try:
        yield
    finally:
        _quiet = before


def is_quiet() -> bool:
    """Returns whether hints are left out."""
    return _quiet


def hint(line: str) -> None:
    """Prints a line that tells no result, such as what may be done next."""
    if not _quiet:
        say(line)


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
