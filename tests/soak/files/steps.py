"""What a reader does, as the lines that it goes through one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import PIL
import pydicom

import usucl

# Readers in C cannot be watched; what they return leads through these.
WATCHED = tuple(str(Path(str(module.__file__)).parent) for module in (usucl, pydicom, PIL))


class Steps:
    """Pairs of successive lines of the watched modules, each as a number.

    The numbers are the same in all forks of one process.
    """

    def __init__(self) -> None:
        self.taken: set[int] = set()

    def watch(self, read: Callable[[Path], Any]) -> Callable[[Path], Any]:
        """Returns a function that does the same, and notes the steps that it takes."""

        def watched(path: Path) -> Any:
            sys.settrace(self._called)
            try:
                return read(path)
            finally:
                sys.settrace(None)

        return watched

    def _called(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(WATCHED):
            return None
        name, before = hash((code.co_filename, code.co_firstlineno)), 0

        def line(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal before
            self.taken.add(hash((name, before, frame.f_lineno)))
            before = frame.f_lineno
            return line

        return line
