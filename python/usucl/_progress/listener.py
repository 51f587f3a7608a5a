"""Whoever listens keeps the open stages of all threads, and draws the innermost now and then."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from usucl._progress.stages import Stage

if TYPE_CHECKING:
    from usucl._progress.displays import Display

_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()


class Listener:
    """Draws the progress of the stages that begin while it listens.

    Args:
        display: where and how it is drawn.
        clock: returns seconds.
    """

    def __init__(self, display: Display, clock: Callable[[], float]) -> None:
        self.display = display
        self.clock = clock
        self._open: list[tuple[int, Stage]] = []  # by thread, in the order of their start
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._paused = False
        self._thread: threading.Thread | None = None
        self._own = threading.get_ident()
        _listeners.add(self)

    def stage(
        self, what: str, total: float | None, unit: str, parts: Mapping[str, float | None]
    ) -> Stage:
        """Returns a stage that tells this listener when it begins and ends."""
        return Stage(self, what, total, unit, parts)

    def begin(self, stage: Stage) -> None:
        """Opens a stage within the innermost of its thread, or of the thread that listens."""
        here = threading.get_ident()
        with self._lock:
            mine = [s for thread, s in self._open if thread == here]
            others = [s for thread, s in self._open if thread == self._own]
            around = mine or others
            parent = around[-1] if around else None
            now = self.clock()
            stage.enter(now, parent)
            self._open.append((here, stage))
            if parent is None and len(self._open) == 1:
                self.display.open()
            self.tick()

    def end(self, stage: Stage, *, failed: bool) -> None:
        """Closes a stage, and whatever within it was left open."""
        with self._lock:
            opened = [s for _, s in self._open]
            if stage not in opened:
                return
            now = self.clock()
            for inner in reversed(opened):
                if _is_within(inner, stage):
                    inner.leave(now)
                    self._open = [(t, s) for t, s in self._open if s is not inner]
                    if not failed and not inner.parts:
                        self._draw(inner, now, ended=True)
            if not self._open:
                self.display.close()
            else:
                self.tick()

    def tick(self) -> None:
        """Draws how far everything is."""
        with self._lock:
            if not self._open:
                return
            now = self.clock()
            for _, stage in self._open:
                if stage.parent is None:
                    stage.sample(now)
            leaves = [s for _, s in self._open if not s.parts] or [self._open[-1][1]]
            self._draw(leaves[-1], now, ended=False)

    def _draw(self, stage: Stage, now: float, *, ended: bool) -> None:
        if self._paused:
            return
        job = stage
        while job.parent is not None:
            job = job.parent
        self.display.draw(stage, job, now, ended=ended)

    def pause(self, paused: bool) -> None:
        """Draws nothing from now on, or again."""
        with self._lock:
            if paused:
                self.display.close()
            self._paused = paused

    def start(self) -> None:
        """Ticks from now on, in a thread."""
        self._thread = threading.Thread(target=self._run, name="usucl-progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and removes what is drawn."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._open = []
            self.display.close()

    def _run(self) -> None:
        while not self._stopped.wait(self.display.period):
            with contextlib.suppress(Exception):  # no drawing is worth the work it tells of
                self.tick()

    def before_fork(self) -> None:
        """Waits for a drawing to be finished."""
        self._lock.acquire()

    def after_fork(self, *, child: bool) -> None:
        """Goes on in the parent; a child has no thread to draw, so it keeps silent."""
        if child:
            self._open = []
            self.display.mute()
        self._lock.release()


def _is_within(stage: Stage, outer: Stage) -> bool:
    at: Stage | None = stage
    while at is not None and at is not outer:
        at = at.parent
    return at is outer


def _before_fork() -> None:
    for listener in _listeners:
        listener.before_fork()


def _after_fork(*, child: bool) -> None:
    for listener in _listeners:
        listener.after_fork(child=child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=lambda: _after_fork(child=False),
        after_in_child=lambda: _after_fork(child=True),
    )
