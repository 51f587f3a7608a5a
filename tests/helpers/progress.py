"""A fake clock for progress, and what is drawn by it."""

from __future__ import annotations

from typing import Any

from usucl._progress.displays import Display
from usucl._progress.stages import Stage


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Recorder(Display):
    """Keeps what would be drawn."""

    def __init__(self) -> None:
        self.drawn: list[tuple[str, float, float | None, bool | None]] = []
        self.ended: list[str] = []
        self.opened = 0

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        self.opened -= 1

    def draw(self, stage: Stage, job: Stage, now: float, *, ended: bool) -> None:
        left = job.remaining(now)
        seconds, whole = (None, None) if left is None else left
        if ended:
            self.ended.append(stage.what)
        else:
            self.drawn.append((stage.what, stage.done, seconds, whole))


class Heard:
    """Somebody who listens: the clock, what is drawn, and a way to look again."""

    def __init__(self, display: Any) -> None:
        self.clock, self.display = Clock(), display
        self.listener: Any = None

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.listener.tick()

    def finish(self, bar: Stage, items: int, seconds: float) -> None:
        """Finishes items, after some time."""
        self.clock.now += seconds
        bar.advance(items)
        self.listener.tick()

    @property
    def last(self) -> tuple[str, float, float | None, bool | None]:
        return self.display.drawn[-1]
