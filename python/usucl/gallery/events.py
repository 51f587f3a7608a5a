"""What long work tells the caller's callback while it goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from usucl.data import Skipped

logger = logging.getLogger(__name__)


class Progress(NamedTuple):
    """``done`` of ``total`` frames are finished; ``video`` is the id of the last one's video."""

    done: int
    total: int
    video: str = ""


class Resumed(NamedTuple):
    """A build goes on with what an interrupted one has left.

    Attributes:
        finished: videos that need not be embedded again.
        videos: all videos of the build.
        unused: videos that were embedded by another encoder or from other files.
        complete: the gallery was whole, and only the remains of the build had to be removed.
    """

    finished: int
    videos: int
    unused: int = 0
    complete: bool = False


Callback: TypeAlias = Callable[[Progress | Resumed | Skipped], None]


def log_skipped(event: Progress | Resumed | Skipped) -> None:
    """The callback where none is given: a video that cannot be read is named in the log."""
    if isinstance(event, Skipped):
        logger.warning("left out: %s: %s", event.path, event.reason)
