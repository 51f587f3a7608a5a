"""Starts the processes of a run on this machine, and ends all of them if one is lost.

The processes run a module of this package, never the script of whoever calls, so that a script
needs no ``if __name__ == "__main__":`` and a notebook can train on several GPUs.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import IO, Any, NamedTuple

from usucl._progress import left_to_others, listening
from usucl._warnings import outside
from usucl.training.processes.together import LostRankError

CHILD = "usucl.training.processes.child"
BETWEEN_LOOKS = 0.05  # seconds
TO_END_BY_THEMSELVES = 10.0  # seconds after another is lost: their connections end with it
TO_SAVE = 120.0  # seconds after SIGTERM or Ctrl-C
TO_CLOSE = 10.0  # seconds after which a process that was told to end is killed
LAST_LINES = 20
FORWARDED = (signal.SIGTERM, signal.SIGUSR1)


class Report(NamedTuple):
    """What a process tells of itself.

    Attributes:
        kind: ``"error"`` or ``"warning"``.
        value: the exception or warning.
        time: when.
    """

    kind: str
    value: BaseException
    time: float


class Child:
    """One of the processes that are started.

    Args:
        rank, size: its number, and how many there are.
        address: where they meet.
        job: what rank 0 is to do; others get it from there.
        alive: a pipe that ends when this process does.
        told: where its reports go.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        address: tuple[str, int],
        job: bytes | None,
        alive: int,
        told: queue.SimpleQueue[tuple[int, Report]],
    ) -> None:
        self.rank = rank
        self.errors: list[Report] = []
        self.killed = False  # because it did not end by itself
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        reading, writing = os.pipe()
        own_terminal = sys.stderr is sys.__stderr__ and sys.stdout is sys.__stdout__
        shown = rank == 0
        output = None if shown and own_terminal else subprocess.PIPE
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", CHILD, str(writing), str(alive), str(int(listening()))],
                env=_environment(rank, size, address),
                stdin=subprocess.PIPE if job is not None else subprocess.DEVNULL,
                stdout=output if shown else subprocess.DEVNULL,
                stderr=output,
                pass_fds=(writing, alive),
                start_new_session=True,  # Ctrl-C reaches this process, which decides
            )
        finally:
            os.close(writing)
        self._threads = [_start(self._read_reports, os.fdopen(reading, "rb"), told)]
        if self.process.stdout is not None:
            self._threads.append(_start(self._read_lines, self.process.stdout, sys.stdout))
        if self.process.stderr is not None:
            to = sys.stderr if shown else None
            self._threads.append(_start(self._read_lines, self.process.stderr, to))
        if job is not None:
            assert self.process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it has ended, and tells why
                self.process.stdin.write(job)
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def _read_reports(self, pipe: IO[bytes], told: queue.SimpleQueue[tuple[int, Report]]) -> None:
        with pipe, contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                report: Report = pickle.load(pipe)
                if report.kind == "error":
                    self.errors.append(report)
                else:
                    told.put((self.rank, report))

    def _read_lines(self, pipe: IO[bytes], to: IO[str] | None) -> None:
        with pipe:
            for line in pipe:
                text = line.decode(errors="backslashreplace")
                self.last_lines.append(text.rstrip())
                if to is not None:
                    with contextlib.suppress(OSError, ValueError):
                        to.write(text)
                        to.flush()

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.poll()

    def signal(self, number: int) -> None:
        """Sends a signal, if the process is still there."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def join(self) -> None:
        """Waits for what it has told; it has ended."""
        self.process.wait()
        for thread in self._threads:
            thread.join(TO_CLOSE)


def _start(target: Callable[..., None], *args: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


def _environment(rank: int, size: int, address: tuple[str, int]) -> dict[str, str]:
    """Returns the environment of a process: that of torchrun, without that of other starters."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")
    }
    threads = (
        max(1, len(os.sched_getaffinity(0)) // size) if hasattr(os, "sched_getaffinity") else 1
    )
    kept.setdefault("OMP_NUM_THREADS", str(threads))
    if any(name == "lo" for _, name in socket.if_nameindex()):
        kept.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the machine's name may lead nowhere
    return kept | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": address[0],
        "MASTER_PORT": str(address[1]),
    }


def launch(job: Any, size: int, advice: Callable[[], str]) -> None:
    """Has ``job`` done by ``size`` processes of this machine, and returns when it is.

    Warnings of rank 0 are given here, and an error of a process is raised here.

    Args:
        job: handed to the processes; see :func:`usucl.training.processes.child.main`.
        size: number of processes.
        advice: returns what to do after a process was lost.

    Raises:
        LostRankError: a process was ended from outside.
        KeyboardInterrupt, SystemExit: after Ctrl-C and SIGTERM, when all have ended.
        BaseException: of any kind that a process has raised.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    reading, writing = os.pipe()
    told: queue.SimpleQueue[tuple[int, Report]] = queue.SimpleQueue()
    children: list[Child] = []
    content = pickle.dumps(job)
    with left_to_others(), _noted_signals() as terminated:
        try:
            for rank in range(size):
                handed = content if rank == 0 else None
                children.append(Child(rank, size, address, handed, reading, told))
            _watch(children, told, terminated)
        except KeyboardInterrupt:
            _end(children, signal.SIGINT, TO_SAVE)
            raise
        finally:
            _end(children, signal.SIGTERM, TO_CLOSE)
            os.close(reading)
            os.close(writing)
            for child in children:
                child.join()
            _warn(told)
    _raise(children, terminated, advice)


def _watch(
    children: list[Child], told: queue.SimpleQueue[tuple[int, Report]], terminated: list[int]
) -> None:
    """Returns when all have ended, or when those that have not must be made to end."""
    stopping: float | None = None
    while any(child.code is None for child in children):
        time.sleep(BETWEEN_LOOKS)
        _warn(told)
        if stopping is None and terminated:
            stopping = time.monotonic() + TO_SAVE
            for child in children:
                child.signal(terminated[0])
        if stopping is None and any(child.code for child in children):
            stopping = time.monotonic() + TO_END_BY_THEMSELVES
        if stopping is not None and time.monotonic() > stopping:
            return


def _warn(told: queue.SimpleQueue[tuple[int, Report]]) -> None:
    while True:
        try:
            rank, report = told.get_nowait()
        except queue.Empty:
            return
        if rank == 0 and isinstance(report.value, Warning):
            warnings.warn(report.value, stacklevel=outside())


def _end(children: list[Child], number: int, seconds: float) -> None:
    """Tells all that are left to end, and kills those that do not within ``seconds``."""
    left = [child for child in children if child.code is None]
    for child in left:
        child.signal(number)
    until = time.monotonic() + seconds
    try:
        while any(child.code is None for child in left) and time.monotonic() < until:
            time.sleep(BETWEEN_LOOKS)
    finally:
        for child in left:
            if child.code is None:
                child.signal(signal.SIGKILL)
                child.process.wait()
                child.killed = True


def _raise(children: list[Child], terminated: list[int], advice: Callable[[], str]) -> None:
    """Raises the error that was the first, if there was any; others follow from it."""
    size = len(children)
    errors = sorted(
        ((report, child) for child in children for report in child.errors),
        key=lambda pair: (isinstance(pair[0].value, LostRankError), pair[0].time),
    )
    stopped = all(isinstance(report.value, SystemExit | LostRankError) for report, _ in errors)
    if terminated and stopped:
        handler = signal.getsignal(terminated[0])
        if callable(handler):  # of a command, which says how to go on
            handler(terminated[0], None)
        raise SystemExit(128 + signal.SIGTERM)
    if errors and not isinstance(errors[0][0].value, LostRankError):
        report, child = errors[0]
        if child.rank > 0 and isinstance(report.value, Exception):
            report.value.add_note(f"in rank {child.rank} of {size}")
        raise report.value
    silent = [child for child in children if child.code and not child.errors]
    if silent:
        child = min(silent, key=lambda child: child.killed)
        assert child.code is not None
        lines = [line for line in child.last_lines if line] if child.rank else []
        said = f": {lines[-1]}" if lines else ""
        raise LostRankError(
            f"rank {child.rank} of {size} was lost, {_how(child.code)}{said}; the others were "
            f"ended too. {advice()}"
        )
    if errors:
        raise errors[0][0].value


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    memory = " (out of memory, or killed by hand)" if -code == signal.SIGKILL else ""
    return f"ended by {name}{memory}, exit code {128 - code}"


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Notes the signals that end a run, which whoever handled them gets in the end."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)

    before = {number: signal.signal(number, note) for number in FORWARDED}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
