"""Where a warning points: to the line of the caller that can do something about it."""

from __future__ import annotations

import sys

_OWN = __name__.partition(".")[0]


def outside() -> int:
    """Returns the ``stacklevel`` with which ``warnings.warn`` points out of this package.

    It is that of the nearest caller that is no module of this package, however many functions lie
    between it and the one that warns.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_own(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == _OWN
