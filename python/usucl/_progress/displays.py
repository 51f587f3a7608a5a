"""Progress drawn as a bar in a terminal, as lines in a pipe or a file, and in a notebook."""

from __future__ import annotations

import os
import sys
import threading
from typing import IO, TYPE_CHECKING, Any

from usucl._progress.stages import duration

if TYPE_CHECKING:
    from rich.console import Console

    from usucl._progress.stages import Remaining, Stage

FIRST_LINE = 3.0  # seconds until a pipe has its first line
BETWEEN_LINES = 30.0
LINES, SELDOM = 60, 600.0  # lines for all the time so far, but never farther apart in seconds
WORTH_A_LINE = 2.0  # seconds that a stage must have taken for a line at its end
BETWEEN_DRAWINGS = 0.08  # seconds
WIDEST_BAR, NARROWEST_BAR = 40, 8  # columns


class Display:
    """Somewhere to draw progress; this one draws nothing.

    Attributes:
        period: seconds between two drawings.
    """

    period = 1.0

    def open(self) -> None:
        """Starts the display of a job."""

    def draw(self, stage: Stage, job: Stage, now: float, *, ended: bool) -> None:
        """Draws the state of a stage, or its end, and the remaining time of its job."""

    def close(self) -> None:
        """Removes what is no longer true."""

    def mute(self) -> None:
        """Draws nothing from now on, as in a process that was forked."""
        self.draw = self._draw_nothing  # type: ignore[method-assign]

    def _draw_nothing(self, *_: object, **__: object) -> None:
        pass


class Lines(Display):
    """A line every 30 seconds at most, and one at the end of every longer stage.

    After an hour the lines are a minute apart, after ten hours and later, ten minutes.
    """

    period = 1.0

    def __init__(self) -> None:
        self._last: float | None = None

    def draw(self, stage: Stage, job: Stage, now: float, *, ended: bool) -> None:
        """Prints a line, if it is time for one."""
        if ended:
            if stage.spent(now) < WORTH_A_LINE:
                return
        else:
            first = BETWEEN_LINES if stage.parts else FIRST_LINE  # a job says little of itself
            # Lines become rarer in work that takes hours: a log of days is still read.
            later = min(max(BETWEEN_LINES, job.spent(now) / LINES), max(SELDOM, BETWEEN_LINES))
            if now < (job.begun + first if self._last is None else self._last + later):
                return
        self._last = now
        parts = [*_alarm(stage), *_count(stage), *_rate(stage, now), *_note(stage)]
        parts += [f"finished in {duration(stage.spent(now))}"] if ended else []
        left = None if ended and job is stage else job.remaining(now)
        if left is not None and (left.seconds >= 1 or not ended):
            parts.append(_eta(left))
        text = f": {', '.join(parts)}" if parts else " ..."
        self.print(f"[{duration(job.spent(now))}] {stage.what}{text}")

    def close(self) -> None:
        """The next job has a first line of its own."""
        self._last = None

    def print(self, line: str) -> None:
        """Prints a line to standard error, unless nobody reads it any more."""
        from usucl._terminal import visible

        try:
            print(visible(line), file=sys.stderr, flush=True)
        except (OSError, ValueError):  # closed, or a full disk: the work goes on
            self.mute()


class Bar(Display):
    """A bar on the last line of a terminal; what is printed meanwhile comes above it."""

    period = 0.2

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self._lock = threading.RLock()
        self._console: Console | None = None  # made once, for rich takes its time to be imported
        self._drawn = ""
        self._last = -BETWEEN_DRAWINGS
        self._replaced: dict[str, _Above] = {}

    def open(self) -> None:
        """From now on, whole lines that are printed appear above the bar."""
        with self._lock:
            for name in ("stdout", "stderr"):
                stream = getattr(sys, name)
                if isinstance(stream, _Above) or stream is None or not stream.isatty():
                    continue
                self._replaced[name] = _Above(stream, self)
                setattr(sys, name, self._replaced[name])

    def draw(self, stage: Stage, job: Stage, now: float, *, ended: bool) -> None:
        """Replaces the bar."""
        if ended or 0 <= now - self._last < BETWEEN_DRAWINGS:
            return
        self._last = now
        with self._lock:
            self._drawn = self._rendered(stage, job, now)
            try:
                self._write("\r\x1b[2K" + self._drawn)
            except (OSError, ValueError):  # the terminal is gone: the work goes on
                self.mute()

    def erase(self) -> None:
        """Makes room for a line."""
        if self._drawn:
            self._write("\r\x1b[2K")

    def redraw(self) -> None:
        """Draws the bar again below a line."""
        if self._drawn:
            self._write(self._drawn)

    def close(self) -> None:
        """Removes the bar."""
        with self._lock:
            for name, above in self._replaced.items():
                if getattr(sys, name) is above:
                    setattr(sys, name, above.stream)
            for above in self._replaced.values():
                above.finish()
            self._replaced = {}
            try:
                self.erase()
            except (OSError, ValueError):
                self.mute()
            self._drawn = ""
            self._last = -BETWEEN_DRAWINGS

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def _rendered(self, stage: Stage, job: Stage, now: float) -> str:
        """Returns the bar on one line: the least important parts go first where it is narrow."""
        from rich.cells import cell_len
        from rich.console import Console
        from rich.progress_bar import ProgressBar

        from usucl._terminal import visible

        if self._console is None:
            self._console = Console(file=self.stream, markup=False, emoji=False, highlight=False)
        shown = self._console
        width = shown.width - 1  # a full line would wrap
        what = visible(stage.what)
        count, rate, note = _count(stage), _rate(stage, now), _note(stage)
        alarm = _alarm(stage)
        share = [f"{min(stage.done / stage.total, 1):.0%}"] if stage.total else []
        left = [_eta(job.remaining(now))]
        for parts in (
            [*alarm, *count, *rate, *note, *left],
            [*alarm, *count, *rate, *left],
            [*alarm, *count, *left],
            [*alarm, *share, *left],
            [*share, *left],
            left,
            [],
        ):
            rest = "  ".join(map(visible, parts))
            room = width - cell_len(what) - cell_len(rest) - (2 if parts else 0)
            if room >= 0:
                break
        bar = min(room - 2, WIDEST_BAR)
        with shown.capture() as captured:
            if bar >= NARROWEST_BAR:
                total = stage.total or None
                shown.print(what, end="  ", soft_wrap=True)
                shown.print(
                    ProgressBar(total, stage.done, bar, pulse=total is None, animation_time=now)
                )
                shown.print("  " + rest, end="", soft_wrap=True)
            else:
                line = "  ".join(filter(None, [what, rest]))
                shown.print(line, end="", overflow="crop", no_wrap=True, width=max(width, 1))
        return captured.get().replace("\n", " ")


class _Above:
    """A stream of a terminal whose lines are written above the bar.

    What does not end in a line end is kept until it does.
    """

    def __init__(self, stream: IO[str], bar: Bar) -> None:
        self.stream = stream
        self._bar = bar
        self._kept = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self._bar._lock:
            lines, end, rest = (self._kept + text).rpartition("\n")
            self._kept = rest
            if end:
                self._bar.erase()
                self.stream.write(lines + end)
                self.stream.flush()
                self._bar.redraw()
        return len(text)

    def writelines(self, lines: Any) -> None:
        self.write("".join(lines))

    def finish(self) -> None:
        """Writes what was kept."""
        if self._kept:
            self._bar.erase()
            self.stream.write(self._kept)
            self.stream.flush()
            self._bar._drawn = self._kept = ""


class Notebook(Display):
    """A line that is replaced in the output of a notebook's cell."""

    period = 0.5

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, stage: Stage, job: Stage, now: float, *, ended: bool) -> None:
        """Replaces the line."""
        if ended:
            return
        told = [*_alarm(stage), *_count(stage), *_rate(stage, now), *_note(stage)]
        parts = [*told, _eta(job.remaining(now))]
        self._show(f"{stage.what}: {', '.join(parts)}")

    def close(self) -> None:
        """Empties the line."""
        if self._handle is not None:
            self._show("")
        self._handle = None

    def _show(self, line: str) -> None:
        from IPython.display import display

        from usucl._terminal import visible

        data = {"text/plain": visible(line)}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


def display_here() -> Display:
    """Returns what fits standard error: a terminal, a notebook, or anything else."""
    stream = sys.stderr
    if stream is None:
        return Display()
    if stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        return Bar(stream)
    return Notebook() if _in_notebook() else Lines()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # it was imported where this is a notebook
    shell = None if ipython is None else ipython.get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _count(stage: Stage) -> list[str]:
    if not stage.done and stage.total is None:
        return []
    of = "" if stage.total is None else f"/{stage.total:.0f}"
    return [f"{stage.done:.0f}{of}{' ' + stage.unit if stage.unit else ''}"]


def _rate(stage: Stage, now: float) -> list[str]:
    rate = stage.rate(now)
    if rate is None:
        return []
    number, unit = stage.per_item
    rate *= number
    if rate < 0.1:
        return [f"{1 / rate:.0f} s each"]
    figure = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
    return [f"{figure} {unit}/s" if unit else f"{figure}/s"]


def _alarm(stage: Stage) -> list[str]:
    return [f"ALARM: {stage.alarm}"] if stage.alarm else []


def _note(stage: Stage) -> list[str]:
    return [stage.note] if stage.note else []


def _eta(remaining: Remaining | None) -> str:
    if remaining is None or (not remaining.whole and remaining.seconds < 1):
        return "ETA unknown"
    return f"ETA {'' if remaining.whole else 'more than '}{duration(remaining.seconds)}"
