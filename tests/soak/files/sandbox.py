"""Attempts to read a damaged file, each in a forked child with little memory and time."""

from __future__ import annotations

import hashlib
import os
import pickle
import resource
import select
import shutil
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch

from tests.soak.files.damage import damaged

MEMORY = 2 << 30  # bytes above what the child starts with
SECONDS = 10  # of the processor
PATIENCE = 60  # seconds on the clock, as other processes may take the processor
OUTCOMES = (
    "refused", "same", "told", "silent", "traceback", "memory", "hang", "crash",
)  # fmt: skip
BAD = ("traceback", "memory", "hang", "crash")
"""Outcomes that no damage excuses; "silent" is bad only for files that hold a checksum."""


class Reader(NamedTuple):
    """A kind of file.

    Attributes:
        write: writes files to an empty folder; returns the one to damage.
        read: reads that file; what it returns tells whether something else was read.
        sealed: whether a checksum tells every damage.
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    sealed: bool = False


class Attempt(NamedTuple):
    """What came of one damaged file: an outcome, its message, what was read, KiB at most."""

    outcome: str
    message: str
    digest: str
    memory: int


class Result(NamedTuple):
    """What came of all damaged files of a reader."""

    counts: Counter[str]
    examples: dict[str, list[str]]
    memory: int


def fuzz(
    readers: Mapping[str, Reader], name: str, inputs: int, folder: Path, *, seed: int, jobs: int
) -> Result:
    """Reads ``inputs`` damaged files of a reader; bad ones stay in ``folder``/bad.

    Raises:
        RuntimeError: the undamaged file cannot be read.
    """
    work = folder / name
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        file = pool.submit(_prepare, readers[name], work / "whole").result()
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        parts = [
            pool.submit(
                _slice, readers[name], work, file, range(job, inputs, jobs), f"{name}{seed}"
            )
            for job in range(jobs)
        ]
        results = [part.result() for part in parts]
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for result in results:
        counts += result.counts
        for outcome, some in result.examples.items():
            examples.setdefault(outcome, []).extend(some)
    return Result(counts, examples, max(result.memory for result in results))


def _prepare(reader: Reader, whole: Path) -> Path:
    torch.set_num_threads(1)
    whole.mkdir(parents=True)
    return reader.write(whole).relative_to(whole)


def _slice(reader: Reader, work: Path, file: Path, numbers: range, seed: int) -> Result:
    """Makes and reads the damaged files of these numbers, in a copy of the folder."""
    torch.set_num_threads(1)
    own = work / f"job{numbers.start}"
    shutil.copytree(work / "whole", own)
    path = own / file
    content = path.read_bytes()
    whole = attempt(reader.read, path)
    if whole.outcome not in ("read", "told"):
        raise RuntimeError(f"{file}: cannot be read undamaged: {whole.outcome} {whole.message}")
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    most = 0
    for number in numbers:
        path.write_bytes(damaged(content, Random(f"{work.name} {seed} {number}")))
        found = attempt(reader.read, path)
        outcome = found.outcome
        if outcome == "read":
            outcome = "same" if found.digest == whole.digest else "silent"
        counts[outcome] += 1
        most = max(most, found.memory)
        if outcome in BAD or (outcome == "silent" and reader.sealed):
            bad = work.parent / "bad" / f"{work.name}-{number}-{path.name}"
            bad.parent.mkdir(exist_ok=True)
            shutil.copy(path, bad)
            examples.setdefault(outcome, []).append(f"{bad.name}: {found.message}")
    return Result(counts, examples, most)


def attempt(read: Callable[[Path], Any], path: Path) -> Attempt:
    """Reads a file in a forked child; returns how it ended."""
    answer, question = os.pipe()
    child = os.fork()
    if not child:
        os.close(answer)
        try:
            _limit()
            os.write(question, pickle.dumps(_outcome(read, path)))
        finally:
            os._exit(0)
    os.close(question)
    deadline, said = time.monotonic() + PATIENCE, b""
    while ready := select.select([answer], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not (part := os.read(answer, 1 << 16)):
            break
        said += part
    os.close(answer)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    memory = usage.ru_maxrss
    if not ready or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return Attempt("hang", f"over {SECONDS} s", "", memory)
    if os.WIFSIGNALED(status) or not said:
        return Attempt("crash", f"status {status}", "", memory)
    return Attempt(*pickle.loads(said), memory)


def _limit() -> None:
    """Bounds memory and time of this process, and silences it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
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
