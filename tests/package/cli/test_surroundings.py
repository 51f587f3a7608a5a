"""Commands in all surroundings: errors of every kind, signals, terminals, environments, names."""

from __future__ import annotations

import csv
import getpass
import io
import os
import pickle
import signal
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.errors import MarkupError
from safetensors import SafetensorError
from shell import stderr_line, write_video

from usucl._environment import name_user
from usucl._terminal import say, table, visible
from usucl.cli import COMMANDS, main
from usucl.cli.errors import keeping


def run(monkeypatch: pytest.MonkeyPatch, command: Callable[[], None]) -> int:
    """Runs a function as a command."""

    def info() -> None:
        """Run it."""
        command()

    monkeypatch.setitem(COMMANDS, "info", info)
    return main(["info"])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("k must be at least 1, got 0"), 2, "error: k must be at least 1, got 0"),
        (OSError(28, "No space left on device", "a/b"), 2, "No space left on device: 'a/b'"),
        (RuntimeError("first\nsecond\x1b[31m"), 2, r"error: first second\x1b[31m"),
        (MemoryError(), 2, "error: not enough memory"),
        (RecursionError("too deep"), 2, "error: too deep"),
        (KeyError("bank"), 1, "error: KeyError: 'bank'; USUCL_DEBUG=1 shows where"),
        (zlib.error("incorrect data"), 1, "error: incorrect data; USUCL_DEBUG=1"),
        (csv.Error("line contains NUL"), 1, "Error: line contains NUL; USUCL_DEBUG=1"),
        (EOFError("Ran out"), 1, "EOFError: Ran out; USUCL_DEBUG=1"),
        (pickle.UnpicklingError("bad"), 1, "UnpicklingError: bad; USUCL_DEBUG=1"),
        (SafetensorError("header"), 1, "SafetensorError: header; USUCL_DEBUG=1"),
        (MarkupError("closing tag '[/x]'"), 1, "MarkupError: closing tag '[/x]'; USUCL_DEBUG=1"),
        (OverflowError("int too large"), 1, "OverflowError: int too large; USUCL_DEBUG=1"),
        (ValueError("x" * 100_000), 2, "xxx ..."),
        (
            ValueError(
                "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most "
                'recent call last):\n  File "x.py", line 1, in f\nusucl.Error: a.png: no image\n'
            ),
            2,
            "error: a.png: no image",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_error_is_one_line(
    error: Exception,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.delenv("USUCL_DEBUG", raising=False)
    assert run(monkeypatch, fail) == code
    line = stderr_line(capsys)
    assert said in line and len(line) < 1100


def test_an_error_of_the_system_tells_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(error: Exception) -> None:
        with keeping(lambda: "to go on: the same command", EOFError):
            raise error

    assert run(monkeypatch, lambda: fail(OSError(28, "No space left on device", "a/b"))) == 2
    said = "[Errno 28] No space left on device: 'a/b'; to go on: the same command"
    assert stderr_line(capsys) == f"usucl: error: {said}"
    assert run(monkeypatch, lambda: fail(EOFError("a.mp4: cut"))) == 2
    assert stderr_line(capsys) == "usucl: error: a.mp4: cut; to go on: the same command"
    assert run(monkeypatch, lambda: fail(FileExistsError("a holds a bank"))) == 2
    assert stderr_line(capsys) == "usucl: error: a holds a bank"


def test_sigterm_ends_a_command_with_143(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = []

    def wait() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            closed.append(True)

    assert run(monkeypatch, wait) == 143
    assert closed and "terminated (SIGTERM)" in stderr_line(capsys)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 心 \u3000[/x] :smile:", "plain ü 心 \u3000[/x] :smile:"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\r\t\x00\x7f\x9b", r"a\nb\r\t\x00\x7f\x9b"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("\u2066\u200f\u2028\ufeff", r"\u2066\u200f\u2028\ufeff"),
        ("\udcfc", r"\udcfc"),
    ],
)
def test_what_acts_on_a_terminal_is_escaped(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert visible(text) == shown
    say(text)
    table([text], [[text]], title=text)
    say(text, stderr=True)
    captured = capsys.readouterr()
    assert captured.err == shown + "\n"
    assert captured.out.count(shown) == 4


def test_messages_are_escaped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, lambda: warnings.warn("a\n\x1b[1m [/x]", stacklevel=1)) == 0
    assert capsys.readouterr().err == "usucl: warning: a \\x1b[1m [/x]\n"


@pytest.mark.parametrize(
    "name", ["a[", "[bold]b", "[x]", ":smile:", "a\x1b[31m", "c,d e(f)", "$x$"]
)
def test_data_check_shows_names_as_they_are(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # short paths, which need no second line in a table
    write_video(Path(name, name), 0)
    Path(name, f"{name}.mp4").write_bytes(b"no video")
    assert main(["data", "check", f"./{name}"]) == 0
    out = capsys.readouterr().out
    assert f"{visible(name)}.mp4" in out and f"{visible(name)}  " in out
    assert "\x1b" not in out


def test_names_are_printed_in_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "übung", 0)
    printed = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", printed)
    assert main(["data", "check", str(tmp_path)]) == 0
    printed.seek(0)
    assert r"\xfcbung" in printed.read()


def test_a_notebooks_backend_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.not_here")
    assert main(["info"]) == 0
    assert os.environ["MPLBACKEND"] == "Agg"


def test_a_user_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["uid not found"])
    name_user()
    assert getpass.getuser() == f"user-{os.getuid()}"
    monkeypatch.delenv("USER")


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert run(monkeypatch, lambda: table(["a"], [["b"]])) == 0
