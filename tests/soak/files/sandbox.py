"""A forked process that reads files, each damaged in its own way, with little memory and time."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
import signal
import warnings
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch

from tests.soak.files.steps import Steps

MEMORY = 2 << 30  # bytes above what the process starts with
SECONDS = 10  # of the processor, per file
PATIENCE = 60  # seconds on the clock, as other processes may take the processor


class Attempt(NamedTuple):
    """What came of one file.

    Attributes:
        outcome: "read", "told" (with a warning), "refused", "traceback", "memory", "hang", "crash".
        message: the error's or the warnings' words.
        digest: a hash of what was read.
        steps: what the reader did that it had not done before.
        memory: KiB at most.
    """

    outcome: str
    message: str = ""
    digest: str = ""
    steps: frozenset[int] = frozenset()
    memory: int = 0


class Sandbox:
    """A context in which a file is read by a process of its own; a new one where one has ended.

    Args:
        read: the reader.
        path: the file.
        known: steps that are no news; None if steps are not watched.
    """

    def __init__(
        self, read: Callable[[Path], Any], path: Path, known: Set[int] | None = None
    ) -> None:
        self._read, self._path, self._known = read, path, known
        self._ours, theirs = multiprocessing.Pipe()
        self._process = os.fork()
        if not self._process:
            self._ours.close()
            try:
                self._serve(theirs)
            finally:
                os._exit(0)
        theirs.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether another file can be read."""
        return self._process != 0

    def close(self) -> None:
        """Ends the process; does nothing if it has ended."""
        if self.alive:
            self._end()

    def attempt(self) -> Attempt:
        """Reads the file as it is now; returns how that ended. A process that dies stays dead."""
        try:
            self._ours.send(None)
            answered = self._ours.poll(PATIENCE)
            if answered:
                found: Attempt = self._ours.recv()
                return found
        except (EOFError, OSError):
            answered = True
        status, memory = self._end()
        if not answered or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
            return Attempt("hang", f"over {SECONDS} s", memory=memory)
        return Attempt("crash", f"status {status}", memory=memory)

    def _end(self) -> tuple[int, int]:
        """Returns the status of the process, and its KiB at most."""
        self._ours.close()
        if not os.waitid(os.P_PID, self._process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            os.kill(self._process, signal.SIGKILL)
        _, status, usage = os.wait4(self._process, 0)
        self._process = 0
        return status, usage.ru_maxrss

    def _serve(self, connection: Any) -> None:
        """Reads the file at each request, in the forked process."""
        _limit()
        known = None if self._known is None else {*self._known}
        while True:
            try:
                connection.recv()
            except EOFError:
                return
            used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
            resource.setrlimit(
                resource.RLIMIT_CPU, (int(used) + SECONDS + 1, resource.RLIM_INFINITY)
            )
            steps = Steps()
            outcome = _outcome(steps.watch(self._read) if known is not None else self._read,
                               self._path)  # fmt: skip
            new = frozenset(steps.taken - (known or set()))
            if known is not None:
                known |= new
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            connection.send(Attempt(*outcome, new, memory))


def attempt(read: Callable[[Path], Any], path: Path) -> Attempt:
    """Reads a file in a new process; returns how that ended."""
    with Sandbox(read, path) as sandbox:
        return sandbox.attempt()


def _limit() -> None:
    """Bounds the memory of this process, and silences it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _outcome(read: Callable[[Path], Any], path: Path) -> tuple[str, str, str]:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            result = read(path)
        except (ValueError, OSError) as error:
            named = path.name in str(error) or str(path.parent) in str(error)
            return "refused" if named else "traceback", _words(error), ""
        except MemoryError as error:
            return "memory", _words(error), ""
        except BaseException as error:
            return "traceback", _words(error), ""
    told = [str(w.message) for w in warned if issubclass(w.category, UserWarning)]
    return "told" if told else "read", "; ".join(told)[:200], digest(result)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"


def digest(result: Any) -> str:
    """Returns a hash of everything that was read."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            add(value.detach().cpu().numpy())
        elif isinstance(value, np.ndarray):
            found.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
        elif isinstance(value, Mapping):
            for key in value:
                found.update(repr(key).encode())
                add(value[key])
        elif isinstance(value, (list, tuple)):
            found.update(b"%d" % len(value))
            for part in value:
                add(part)
        else:
            found.update(repr(value).encode("utf-8", "backslashreplace"))

    add(result)
    return found.hexdigest()
