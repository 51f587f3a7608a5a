"""The events that long work reports to the caller's callback."""

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
    """A build continues an interrupted one.

    Attributes:
        finished: number of videos that need not be embedded again.
        videos: number of videos of the build.
        unused: number of videos that were embedded by another encoder or from other files.
        complete: whether the gallery was complete, with only the parts of the build to remove.
    """

    finished: int
    videos: int
    unused: int = 0
    complete: bool = False


Callback: TypeAlias = Callable[[Progress | Resumed | Skipped], None]


def log_skipped(event: Progress | Resumed | Skipped) -> None:
    """Names a video that cannot be read in the log; the default callback."""
    if isinstance(event, Skipped):
        logger.warning("left out: %s: %s", event.path, event.reason)
