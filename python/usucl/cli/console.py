"""The output of the commands: tables and lines on standard output, problems on standard error."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator

from usucl._terminal import console, say, table, visible

__all__ = ["console", "messages", "say", "table", "visible"]


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
