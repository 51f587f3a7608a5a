"""What is being done, how far it is, and when it will be finished."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from usucl._progress.listener import Listener

SAMPLES = 60
SECONDS_PER_SAMPLE = 1.0  # so a rate is that of the last minute
MEASURED = 0.5  # seconds after which a measured time says more than an expected one


def duration(seconds: float) -> str:
    """Returns hours, minutes and seconds: ``0:02:05``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class Remaining(NamedTuple):
    """Remaining time.

    Attributes:
        seconds: what can be told of it.
        whole: whether that is all; otherwise it takes longer.
    """

    seconds: float
    whole: bool


class Stage:
    """A piece of work; see :func:`usucl._progress.stage`.

    Attributes:
        what: what is being done.
        total, unit: number of items, and their plural name.
        done: number of finished items.
        note: anything else to show, such as the loss.
        alarm: what is wrong, shown until it is replaced or emptied.
        per_item: things that an item consists of, with their plural name: their rate is shown.
        parts: expected seconds of the pieces of the work.
        parent: the work that it is a piece of.
    """

    def __init__(
        self,
        listener: Listener | None,
        what: str,
        total: float | None = None,
        unit: str = "",
        parts: Mapping[str, float | None] | None = None,
    ) -> None:
        self.name = self.what = what  # ``what`` may change; its place in ``parts`` is by name
        self.total, self.unit, self.note, self.alarm = total, unit, "", ""
        self.done = 0.0
        self.per_item = 1.0, unit
        self.parts = dict(parts or {})
        self.parent: Stage | None = None
        self.begun = self.ended = 0.0
        self._listener = listener
        self._measured: dict[str, float] = {}
        self._running: list[Stage] = []
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self._first = 0.0, 0.0  # when it began to count, and from what number
        self._last = 0.0, 0.0  # when items were finished, and how many
        self._expected: tuple[float, float, float] | None = None  # see expect()
        self._lock = threading.Lock()

    def __enter__(self) -> Stage:
        if self._listener is not None:
            self._listener.begin(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._listener is not None:
            self._listener.end(self, failed=kind is not None)

    def advance(self, by: float = 1) -> None:
        """Counts ``by`` more items as finished."""
        if self._listener is not None:
            with self._lock:
                self.done += by
                self._last = self._listener.clock(), by

    def restart(self, done: float, total: float) -> None:
        """Starts to count, and to measure the rate, with ``done`` of ``total`` items finished."""
        if self._listener is not None:
            self.done, self.total = done, total
            self._samples.clear()
            self._samples.append((self._listener.clock(), done))
            self._first = self._last = self._samples[0]

    def update(
        self,
        *,
        what: str | None = None,
        total: float | None = None,
        note: str | None = None,
        alarm: str | None = None,
        per_item: tuple[float, str] | None = None,
        parts: Mapping[str, float | None] | None = None,
    ) -> None:
        """Replaces what is given; of the parts, those that are given."""
        if self._listener is None:
            return
        self.what = self.what if what is None else what
        self.total = self.total if total is None else total
        self.note = self.note if note is None else note
        self.alarm = self.alarm if alarm is None else alarm
        self.per_item = self.per_item if per_item is None else per_item
        self.parts |= parts or {}

    def expect(self, seconds: float, until_next: float) -> None:
        """Says how long the work still takes, where that is known better than by its rate.

        Args:
            seconds: remaining time from now on.
            until_next: greatest part of it that may pass until it is said again: work that takes
                longer than expected does not come nearer to its end meanwhile.
        """
        if self._listener is not None:
            self._expected = seconds, min(until_next, seconds), self._listener.clock()

    def enter(self, now: float, parent: Stage | None) -> None:
        """Starts the work within ``parent``."""
        self.begun, self.parent = now, parent
        self._samples.append((now, self.done))
        self._first = now, self.done
        self._last = now, 0.0
        if parent is not None:
            parent._running.append(self)

    def leave(self, now: float) -> None:
        """Ends the work; its time replaces the expected one."""
        self.ended = now
        if (parent := self.parent) is not None and self in parent._running:
            parent._running.remove(self)
            if self.name in parent.parts:
                parent._measured[self.name] = parent._measured.get(self.name, 0.0) + self.spent(now)

    def spent(self, now: float) -> float:
        """Returns the seconds since the start."""
        return now - self.begun

    def sample(self, now: float) -> None:
        """Notes how far the work is, for its rate."""
        if now - self._samples[-1][0] >= SECONDS_PER_SAMPLE:
            self._samples.append((now, self.done))
        for stage in tuple(self._running):
            stage.sample(now)

    def rate(self, now: float) -> float | None:
        """Returns the items per second of the last minute, or of all time if it had none.

        It is None before the first.
        """
        (since, before), (last, by) = self._samples[0], self._last
        if self.done <= before:
            since, before = self._first
        finished = self.done - before
        if finished <= 0 or last <= since:
            return None
        rate = finished / (last - since)
        # Those that are not finished may take as long as the last ones, but no longer.
        return min(rate, (finished + by) / (now - since))

    def remaining(self, now: float) -> Remaining | None:
        """Returns the seconds until it will be finished; None where nothing is known."""
        if self.total is not None:
            rate = self.rate(now)
            left = max(self.total - self.done, 0.0)
            if left == 0:
                return Remaining(0.0, whole=True)
            if self._expected is not None:
                seconds, until_next, since = self._expected
                return Remaining(seconds - min(now - since, until_next), whole=True)
            if rate is not None:
                last, by = self._last
                begun = min((now - last) * rate, by, left)  # of the items that come next
                return Remaining((left - begun) / rate, whole=True)
        if self.parts:
            return self._remaining_by_parts(now)
        running = self._running[-1:]  # of no known share in the whole
        known = [stage.remaining(now) for stage in running]
        return next((Remaining(r.seconds, whole=False) for r in known if r), None)

    def _remaining_by_parts(self, now: float) -> Remaining | None:
        running = [(s, s.spent(now), s.remaining(now)) for s in tuple(self._running)]
        known = bool(self._measured) or any(left for _, _, left in running)
        took, expected = 0.0, 0.0  # seconds of the parts whose time is known
        for name, measured in self._measured.items():
            if cost := self.parts[name]:
                took, expected = took + measured, expected + cost
        for stage, spent, left in running:
            cost = self.parts.get(stage.name)
            if cost and left is not None and left.whole:
                took, expected = took + spent + left.seconds, expected + cost
        scale = took / expected if took > MEASURED else 1.0
        seconds, whole = 0.0, True
        for stage, spent, left in running:
            cost = self.parts.get(stage.name)
            told = 0.0 if left is None else left.seconds
            if cost is not None and not (left and left.whole):
                told = max(told, cost * scale - spent)
            else:
                whole = whole and left is not None and left.whole
            seconds += told
        begun = {*self._measured, *(stage.name for stage, _, _ in running)}
        for name, cost in self.parts.items():
            if name not in begun:
                whole = whole and cost is not None
                seconds += (cost or 0.0) * scale
        return Remaining(seconds, whole) if known else None


SILENT = Stage(None, "")
"""What a stage is where nobody listens."""
