"""Progress as lines in a pipe, a bar in a terminal and a line in a notebook."""

from __future__ import annotations

import codecs
import fcntl
import io
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import types

import pytest
from progress import Heard

from usucl._progress import listen, stage, track
from usucl._progress.displays import Bar, Display, Lines, Notebook, display_here

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


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


def test_an_alarm_stays_and_a_better_remaining_time_is_taken(
    capsys: pytest.CaptureFixture[str], usual_lines: None
) -> None:
    heard = Heard(Lines())
    listening = listen(display=heard.display, clock=heard.clock, ticks=False)
    with listening as heard.listener, stage("Training", 100, unit="steps") as bar:
        heard.finish(bar, 10, 10.0)
        bar.update(alarm="the embeddings contract\x1b[2J")
        bar.expect(600.0, 5.0)
        heard.finish(bar, 10, 30.0)
        heard.later(4000.0)
        heard.later(50.0)  # lines are a minute apart by now
        heard.later(20.0)
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "[0:00:10] Training: 10/100 steps, 1 steps/s, ETA 0:01:30"
    assert len(lines) == 4  # of which the last is that of the end
    for line in lines:
        assert "Training: ALARM: the embeddings contract\\x1b[2J, 20/100 steps" in line
    assert all(line.endswith("ETA 0:09:55") for line in lines[:3])  # no nearer than a step


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
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # background processes ignore it
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
    text, decoder = "", codecs.getincrementaldecoder("utf-8")()

    def until(pattern: str) -> None:
        nonlocal text
        while not re.search(pattern, text):
            there, _, _ = select.select([ours], [], [], 120)
            if not there:
                child.kill()
                pytest.fail(f"the terminal shows no {pattern!r}, but {text!r}")
            text += decoder.decode(os.read(ours, 4096))

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
