"""Errors as the shell tells them: one line, in the words that were typed, and an exit code."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from usucl._environment import advice
from usucl.cli.console import say

# What parameters of commands are called where they are handed to.
ELSEWHERE = {"root": "data", "held_out_folds": "held_out"}
UNKNOWN_ERROR, BAD_INPUT = 1, 2
EXPECTED = (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError)
LONGEST_MESSAGE = 1000  # characters: a damaged file may hold text without end


ENDING = (signal.SIGTERM, signal.SIGUSR1)  # the latter is what SLURM may be told to send


class _Terminated(BaseException):
    """A signal that ends: like KeyboardInterrupt, no error that anything but ``main`` may catch."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.name = signal.Signals(signum).name


def reported(call: Callable[[], int | None], typed: Mapping[str, str], debug: bool) -> int:
    """Returns the exit code of a command, whose error it tells.

    Args:
        call: the command.
        typed: how each of its parameters is typed, see :func:`as_typed`.
        debug: show a traceback before the error.
    """
    try:
        with _terminable():
            return call() or 0
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except EXPECTED as error:
        unnamed = "not enough memory" if isinstance(error, MemoryError) else type(error).__name__
        message = _without_traceback(str(error) or unnamed)
        if isinstance(error, ImportError) and (missing := advice(error)):
            message = f"this needs {missing}"
        return _complain(as_typed(message, typed), debug)
    except KeyboardInterrupt as error:
        return _complain(f"interrupted{_kept(error)}", debug, code=130)
    except _Terminated as error:
        return _complain(
            f"terminated ({error.name}){_kept(error)}", debug, code=128 + signal.SIGTERM
        )
    except Exception as error:
        message = f"{type(error).__name__}: {_without_traceback(str(error))}"
        hint = "" if debug else "; USUCL_DEBUG=1 shows where"
        return _complain(message + hint, debug, code=UNKNOWN_ERROR)


class _SystemError(OSError):
    """The system has refused something, such as a full disk; says what was kept besides."""


@contextmanager
def keeping(kept: Callable[[], str], *others: type[Exception]) -> Iterator[None]:
    """Lets the message of an interruption end with what was kept, and how to go on.

    So does that of an error of the system, such as a full disk or a file that has vanished, and of
    ``others``, whose own message does not say it.
    """
    kinds: tuple[type[Exception], ...] = (OSError, *others)
    try:
        yield
    except (KeyboardInterrupt, _Terminated) as stop:
        stop.args = (kept(),)
        raise
    except kinds as error:
        if isinstance(error, OSError) and error.errno is None:  # this package says what to do
            raise
        raise _SystemError(f"{error}; {kept()}") from error


def _kept(stop: BaseException) -> str:
    return f": {stop.args[0]}" if stop.args else ""


@contextmanager
def _terminable() -> Iterator[None]:
    """Turns the first signal that ends into an exception, to close files; the second kills."""

    def stop(signum: int, frame: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_DFL)
        raise _Terminated(signum)

    main_thread = threading.current_thread() is threading.main_thread()
    # Of others, whoever has called this decides.
    ours = [s for s in ENDING if main_thread and signal.getsignal(s) is signal.SIG_DFL]
    for signum in ours:
        signal.signal(signum, stop)
    try:
        yield
    finally:
        for signum in ours:
            signal.signal(signum, signal.SIG_DFL)


def _complain(message: str, debug: bool, code: int = BAD_INPUT) -> int:
    if debug:
        traceback.print_exc()
    message = " ".join(message.split())
    if len(message) > LONGEST_MESSAGE:
        message = message[:LONGEST_MESSAGE] + " ..."
    say(f"usucl: error: {message}", stderr=True)
    return code


def _without_traceback(message: str) -> str:
    """Returns the cause in a message of a data loader's worker, which holds the whole traceback."""
    cause = r"(?s)'?Caught \w+ in DataLoader worker.*\n(?:Original )?\w[\w.]*: (.+)"
    worker = re.match(cause, message)
    return worker[1] if worker else message


def as_typed(message: str, typed: Mapping[str, str]) -> str:
    """Writes the Python parameters in a message as they are typed.

    ``data must be ...`` becomes ``DATA must be ...``, ``run=`` becomes ``--run``, and
    ``overwrite=True`` becomes ``--overwrite``. Other assignments are of the configuration, for
    which there is ``--set``.
    """
    typed = {old: typed[new] for old, new in ELSEWHERE.items() if new in typed} | dict(typed)
    # "k must be ...", "time: ..."; a path may be called as a parameter
    message = re.sub(r"^(\w+)(?= must |:)", lambda m: typed.get(m[1], m[1]), message)
    named = "|".join(map(re.escape, typed)) or "(?!)"
    message = re.sub(rf"(?<![\w./-])({named})=(True\b|(?![^\s,;]))", lambda m: typed[m[1]], message)
    if "set_" not in typed:
        return message
    change = r"(?<![\w./-])(?<!--set )([a-z_.]+)=(True|False|None)\b"
    yaml = {"True": "true", "False": "false", "None": "null"}
    return re.sub(change, lambda m: f"--set {m[1]}={yaml[m[2]]}", message)
