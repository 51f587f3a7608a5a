"""Progress: its remaining time, its lines in a pipe and its bar in a terminal, by a fake clock."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest

from usucl._progress import displays, job, listen, listening, stage, track
from usucl._progress.displays import Bar, Display, Lines, Notebook, display_here
from usucl._progress.stages import SILENT, Stage

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


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


@pytest.fixture
def heard() -> Iterator[Heard]:
    heard = Heard(Recorder())
    with listen(display=heard.display, clock=heard.clock, ticks=False) as heard.listener:
        yield heard
    assert not listening()


@pytest.fixture
def usual_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prints lines as often as to a user's pipe."""
    for name, seconds in (("FIRST_LINE", 3.0), ("BETWEEN_LINES", 30.0), ("WORTH_A_LINE", 2.0)):
        monkeypatch.setattr(displays, name, seconds)


def test_without_a_listener_there_is_nothing_but_the_items() -> None:
    items = [1, 2]
    assert track(items, "Counting") is items
    assert stage("Counting", 2) is SILENT
    with stage("Counting", 2) as bar:
        bar.advance(2)
        bar.update(note="much", parts={"Reading": 1})
        bar.restart(1, 2)
    assert vars(SILENT)["done"] == 0 and not SILENT.note and not SILENT.parts
    assert not listening()


def test_the_remaining_time_of_items_follows_their_rate(heard: Heard) -> None:
    for number in track(range(10), "Counting"):
        heard.later(2.0)
        left = (9 - number) * 2 if number else None  # the item at hand is nearly finished
        assert heard.last == ("Counting", number, left, None if left is None else True)
    with stage("Waiting"):
        heard.later(1.0)
        assert heard.last[2] is None
    with stage("Counting", 10) as bar:
        assert heard.last[2] is None  # before the first item
        heard.finish(bar, 2, 4.0)
        heard.finish(bar, 2, 4.0)
        assert heard.last == ("Counting", 4, 12.0, True)
        heard.later(3.0)
        assert heard.last[2] == 9.0
        heard.later(3.0)  # the next two take longer than those before: the rate falls
        assert heard.last[2] == pytest.approx(4 * 14 / 6)
        heard.later(14.0)
        assert heard.last[2] == pytest.approx(4 * 28 / 6)
        for _ in range(100):  # not one in the last minute: all time counts
            heard.later(1.0)
        assert heard.last[2] == pytest.approx(4 * 128 / 6)


def test_measured_times_replace_the_expected_ones(heard: Heard) -> None:
    with stage("All", parts={"Reading": 10, "Thinking": 30, "Writing": 5}):
        heard.later(1.0)
        assert heard.last[2] is None  # nothing is measured
        with stage("Reading", 10) as bar:
            heard.finish(bar, 5, 10.0)  # twice as slow as expected
            assert heard.last == ("Reading", 5, 10 + 2 * 35, True)
            heard.finish(bar, 5, 10.0)
        assert heard.last[2] == 2 * 35
        with stage("Thinking"):  # without a count, its expectation runs down
            heard.later(20.0)
            assert heard.last[2] == 2 * 35 - 20
            heard.later(10.0)
        took, expected = 20 + 30, 10 + 30
        heard.later(0.0)
        assert heard.last[2] == pytest.approx(took / expected * 5)
        with stage("Writing", 2) as bar:
            heard.finish(bar, 1, 3.0)
            assert heard.last == ("Writing", 1, 3.0, True)


def test_what_is_not_known_beforehand_is_said(heard: Heard) -> None:
    with stage("All", parts={"Reading": 1, "Training": None}) as whole:
        with stage("Reading", 4) as bar:
            heard.finish(bar, 1, 1.0)
            assert heard.last == ("Reading", 1, 3.0, False)
            whole.update(parts={"Training": 4.0})
            heard.later(0.0)
            assert heard.last == ("Reading", 1, 3.0 + 16.0, True)
        with stage("Training", 10) as bar:
            bar.restart(4, 10)  # a run is resumed
            heard.finish(bar, 2, 2.0)
            assert heard.last == ("Training", 6, 4.0, True)


def test_jobs_within_jobs_are_parts_of_the_whole(heard: Heard) -> None:
    @job("Training", {"Reading": 1, "Steps": 9})
    def training() -> None:
        for _ in track([0], "Reading"):
            heard.later(2.0)
        with stage("Steps", 9) as bar:
            heard.finish(bar, 3, 6.0)
            assert heard.last == ("Steps", 3, 12.0 + 2 * 10, True)

    with stage("Demo", parts={"Training": 10, "Reporting": 10}):
        training()
    assert heard.display.ended == ["Reading", "Steps"]
    assert heard.display.opened == 0


def test_threads_count_on_one_bar_and_their_stages_are_within_it(heard: Heard) -> None:
    with stage("Reading", 400) as bar:
        inner: list[Stage] = []

        def count() -> None:
            with stage("Decoding") as one:
                inner.append(one)
                for _ in range(100):
                    bar.advance()

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bar.done == 400
        assert [one.parent for one in inner] == [bar] * 4
    assert heard.display.opened == 0


def test_an_error_closes_everything(heard: Heard) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise KeyError

    with pytest.raises(KeyError), stage("All", parts={"Reading": 1}):
        for _ in track(broken(), "Reading"):
            stage("Left open").__enter__()
    assert heard.display.opened == 0 and heard.display.ended == []
    with stage("Afterwards"):
        assert heard.last[0] == "Afterwards"


def test_the_outermost_caller_decides_and_an_inner_one_may_hide(heard: Heard) -> None:
    @job("Working")
    def work(progress: bool = True) -> bool:
        return listening()

    assert work() and not work(progress=False)
    with listen() as inner:
        assert inner is heard.listener
    with listen(None) as inner:
        assert inner is heard.listener
    with listen(False):
        assert not listening() and not work() and stage("Hidden") is SILENT
    assert listening()


def test_a_function_shows_its_progress_if_asked() -> None:
    @job("Working")
    def work(progress: bool = False) -> bool:
        return listening()

    assert not work() and work(progress=True) and not listening()


def test_lines(capsys: pytest.CaptureFixture[str], usual_lines: None) -> None:
    heard = Heard(Lines())
    printed: list[str] = []

    def new() -> list[str]:
        captured = capsys.readouterr()
        assert captured.out == "" and not CONTROL.search(captured.err)
        printed.extend(captured.err.splitlines())
        return captured.err.splitlines()

    with listen(display=heard.display, clock=heard.clock, ticks=False) as heard.listener:
        with stage("All", parts={"Reading": 10, "Waiting": 1, "Training": 100}):
            with stage("Reading", 20, unit="videos\x1b[2J") as bar:
                heard.later(2.5)
                assert new() == []
                heard.finish(bar, 5, 2.5)
                line = "[0:00:05] Reading: 5/20 videos\\x1b[2J, 1 videos\\x1b[2J/s, ETA 0:03:37"
                assert new() == [line]
                heard.finish(bar, 15, 15.0)
                assert new() == []  # 30 seconds have not passed
            (line,) = new()
            assert line.startswith("[0:00:20] Reading: 20/20 ")
            assert line.endswith(", finished in 0:00:20, ETA 0:03:22")
            with stage("Waiting"):
                heard.later(1.9)
            assert new() == []  # too short for a line
            with stage("Training", unit="steps") as bar:
                bar.restart(0, 600)
                bar.update(what="Epoch 3/6", note="loss 4.12", per_item=(96, "images"))
                for _ in range(60):
                    heard.finish(bar, 3, 1.0)
                lines = new()
                assert len(lines) == 2
                known = "Epoch 3/6: 87/600 steps, 288 images/s, loss 4.12, ETA 0:02:51"
                assert lines[0] == f"[0:00:51] {known}"
        assert new()[-1].startswith("[0:01:22] Epoch 3/6: 180/600 steps, 288 images/s, loss 4.12, ")
        with stage("Looking around"):
            heard.later(3.0)
            assert new() == ["[0:00:03] Looking around ..."]
        assert new() == ["[0:00:03] Looking around: finished in 0:00:03"]
    assert len(printed) == 7


def test_nobody_who_reads_lines_is_no_error(
    monkeypatch: pytest.MonkeyPatch, usual_lines: None
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    heard = Heard(Lines())
    monkeypatch.setattr(sys, "stderr", Gone())
    with listen(display=heard.display, clock=heard.clock, ticks=False) as heard.listener:
        for _ in track(range(3), "Counting"):
            heard.later(30.0)


class Terminal(io.StringIO):
    """A terminal that understands what the bar sends it."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        """The lines that are seen."""
        return seen(self.getvalue())


def seen(text: str) -> list[str]:
    """Returns what a wide terminal shows after a text."""
    lines = [""]
    for part in re.findall(r"\x1b\[[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            lines.append("")
        elif part == "\x1b[2K":
            lines[-1] = ""
        elif part != "\r" and not re.fullmatch(r"\x1b\[[\d;]*m", part):
            lines[-1] += part
    return lines


def in_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Makes standard output and error a terminal; no fixture, for pytest sets both anew."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    return terminal


def test_the_bar_is_below_what_is_printed_and_gone_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = in_terminal(monkeypatch)
    heard = Heard(display_here())
    assert isinstance(heard.display, Bar)
    with listen(display=heard.display, clock=heard.clock, ticks=False) as heard.listener:
        with pytest.raises(KeyboardInterrupt), stage("Reading", 4, unit="videos") as bar:
            heard.finish(bar, 1, 2.0)
            (line,) = terminal.screen
            assert re.fullmatch(r"Reading  ━+[╸╺]?━+  1/4 videos  0\.5 videos/s  ETA 0:00:06", line)
            print("a", end="")
            assert terminal.screen == [line]  # a line that is not finished
            print("b")
            print("to the error", file=sys.stderr)
            assert terminal.screen == ["ab", "to the error", line]
            print("c", end="")
            raise KeyboardInterrupt
        assert sys.stdout is terminal and sys.stderr is terminal
    assert terminal.screen == ["ab", "to the error", "c"]


@pytest.mark.parametrize("columns", [8, 20, 40, 60, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_bar_fits_into_one_line(
    monkeypatch: pytest.MonkeyPatch, columns: int, encoding: str
) -> None:
    terminal = in_terminal(monkeypatch)
    terminal._encoding = encoding
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    heard = Heard(display_here())
    quiet = listen(display=heard.display, clock=heard.clock, ticks=False)
    with quiet as heard.listener, stage("Epoch 3/6", unit="steps") as bar:
        bar.restart(0, 600)
        bar.update(note="loss 4.12 of a long\n\x1b[1m note", per_item=(96, "images"))
        heard.finish(bar, 100, 50.0)
        (line,) = terminal.screen
        assert len(line) < columns
        assert not re.search(r"\x1b\[[\d;]*m", terminal.getvalue())
        if columns >= 20:
            assert line.startswith("Epoch 3/6")
        if columns >= 40:
            assert line.endswith("ETA 0:04:10") and "100/600" in line
        if columns >= 80:
            assert "192 images/s" in line
        assert encoding == "utf-8" or line.isascii()


def test_the_display_suits_where_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    in_terminal(monkeypatch)
    assert isinstance(display_here(), Bar)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(display_here(), Lines)
    monkeypatch.setattr(sys, "stderr", None)
    assert type(display_here()) is Display
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(display_here(), Lines)


def test_a_notebook_replaces_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            shown[-1] = data["text/plain"]

    def display(data: dict[str, str], raw: bool, display_id: bool) -> Handle:
        shown.append(data["text/plain"])
        return Handle()

    shell = type("ZMQInteractiveShell", (), {})()
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
    ipython.display = types.ModuleType("IPython.display")  # type: ignore[attr-defined]
    ipython.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    heard = Heard(display_here())
    assert isinstance(heard.display, Notebook)
    quiet = listen(display=heard.display, clock=heard.clock, ticks=False)
    with quiet as heard.listener, stage("Reading", 4) as bar:
        heard.finish(bar, 1, 2.0)
        assert shown == ["Reading: 1/4, 0.5/s, ETA 0:00:06"]
    assert shown == [""]


def test_a_process_that_was_forked_draws_nothing(heard: Heard) -> None:
    reader, writer = os.pipe()
    with stage("Loading") as bar:
        before = len(heard.display.drawn)
        child = os.fork()
        if child == 0:
            bar.advance()
            heard.later(1.0)
            with stage("In the child"):
                heard.later(1.0)
            os.write(writer, str(len(heard.display.drawn) - before).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reader, 9) == b"0"
        heard.later(1.0)
        assert len(heard.display.drawn) > before


CHILD = """
import sys
from usucl._progress import listen, stage
with listen(ticks=False, clock=iter(range(10**6)).__next__) as listener:
    try:
        with stage("Reading", 4, unit="videos") as bar:
            for line in sys.stdin:
                bar.advance()
                listener.tick()
                print("line", line.strip())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
"""


def test_a_real_terminal_that_is_made_narrow_and_interrupted() -> None:
    ours, theirs = os.openpty()

    def resize(columns: int) -> None:
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    resize(100)
    settings = termios.tcgetattr(theirs)
    settings[3] &= ~termios.ECHO  # what is typed is not shown
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=take_terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    os.close(theirs)
    text = ""

    def until(pattern: str) -> None:
        nonlocal text
        while not re.search(pattern, text):
            text += os.read(ours, 4096).decode()

    until("0/4 videos")
    os.write(ours, b"one\n")
    until(r"line one[^\x00]*1/4 videos +0[.\d]+ videos/s")
    resize(40)
    os.write(ours, b"two\n")
    until(r"line two[^\x00]*2/4 videos")
    last = seen(text)[-1]
    assert "2/4 videos" in last and "videos/s" not in last and len(last) < 40
    os.write(ours, b"\x03")
    until("interrupted")
    assert child.wait(60) == 0
    with open(ours, "rb", buffering=0) as rest:
        try:
            while part := rest.read(4096):
                text += part.decode()
        except OSError:  # Linux ends a terminal that nobody holds any more with an error
            pass
    kept = [line.strip() for line in seen(text) if line.strip()]
    assert kept == ["line one", "line two", "interrupted"]
    assert "\x1b[?25l" not in text  # the cursor was never hidden
