"""The progress of long work: told by the code that does it, shown only where somebody listens.

::

    for video in track(videos, "Reading videos", unit="videos"):
        ...

    with stage("evaluate", parts={"Reading videos": 1, "Embedding": 5}):  # a job, and its costs
        with stage("Embedding", total=100, unit="frames") as bar:
            bar.advance(10)

Nothing is shown and nothing is measured unless a caller has said ``with listen():``. stages.py
keeps what is being done and when it will be finished; listener.py asks it now and then, and
displays.py draws the answer: as a bar in a terminal, as lines in a pipe or a file.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from usucl._progress.displays import Display, display_here
from usucl._progress.listener import Listener
from usucl._progress.stages import SILENT, Stage, duration

__all__ = ["Stage", "duration", "job", "left_to_others", "listen", "listening", "stage", "track"]

T = TypeVar("T")
P = ParamSpec("P")
Parts = Mapping[str, float | None]

_listener: Listener | None = None
_decided = False  # whether an outer caller has decided what is shown


def stage(
    what: str,
    total: float | None = None,
    *,
    unit: str = "",
    parts: Parts | None = None,
) -> Stage:
    """Returns a piece of work, to be used as a context manager, whose progress is shown.

    Work that begins before it ends is within it, in any thread. The outermost piece is the job
    whose remaining time is shown.

    Args:
        what: what is being done; shown unless the work has ``parts``.
        total: number of items, None where unknown.
        unit: plural name of an item.
        parts: expected seconds of the pieces within it, by their ``what``, in their order; None
            where nothing is known beforehand. Only their ratios matter as soon as one of them was
            measured.
    """
    return SILENT if _listener is None else _listener.stage(what, total, unit, parts or {})


def track(
    items: Iterable[T], what: str, *, total: float | None = None, unit: str = ""
) -> Iterable[T]:
    """Returns ``items``, whose iteration is a :func:`stage` if somebody listens."""
    if _listener is None:
        return items
    return _tracked(items, what, total, unit)


def _tracked(items: Iterable[T], what: str, total: float | None, unit: str) -> Iterator[T]:
    if total is None and isinstance(items, Sized):
        total = len(items)
    with stage(what, total, unit=unit) as bar:
        for item in items:
            yield item
            bar.advance()


def job(
    what: str, parts: Parts | Callable[[Mapping[str, Any]], Parts] | None = None
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Makes a function a :func:`stage` with ``parts``, which may depend on its keyword arguments.

    Where the function has an argument ``progress``, True shows it, and False, if given, hides it.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        parameter = inspect.signature(function).parameters.get("progress")
        usual = parameter is not None and parameter.default is True

        @functools.wraps(function)
        def within(*args: P.args, **kwargs: P.kwargs) -> T:
            shown = kwargs.get("progress", usual or None)
            pieces = parts(kwargs) if callable(parts) else parts
            with listen(shown if isinstance(shown, bool) else None), stage(what, parts=pieces):
                return function(*args, **kwargs)

        return within

    return decorate


@contextmanager
def left_to_others() -> Iterator[None]:
    """Draws nothing meanwhile: other processes draw in the same terminal."""
    if _listener is None:
        yield
        return
    _listener.pause(True)
    try:
        yield
    finally:
        _listener.pause(False)


def listening() -> bool:
    """Returns whether progress is shown."""
    return _listener is not None


@contextmanager
def listen(
    show: bool | None = True,
    *,
    display: Display | None = None,
    clock: Callable[[], float] = time.monotonic,
    ticks: bool = True,
) -> Iterator[Listener | None]:
    """Shows the progress of the work within it on standard error, or hides it.

    The outermost caller decides, except that one within it may hide what it shows.

    Args:
        show: True shows it, False hides it, None leaves it as it is.
        display: how; by default what fits standard error.
        clock: returns seconds.
        ticks: draw regularly, in a thread; without, only when :meth:`Listener.tick` is called.
    """
    global _listener, _decided
    before = _listener, _decided
    if show is None or before == (None, True) or (show and _decided):
        yield _listener
        return
    made = Listener(display or display_here(), clock) if show else None
    _listener, _decided = made, True
    try:
        if made is not None and ticks:
            made.start()
        yield made
    finally:
        _listener, _decided = before
        if made is not None:
            made.stop()
