"""Damages a file again and again, and counts what its reader makes of it.

What a reader is led to by a damaged file decides what is damaged next: a file that took the reader
through two lines in an order that no file before it did joins those that further ones are made of,
as in AFL (Zalewski, 2014).
"""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch

from tests.soak.files.damage import damaged
from tests.soak.files.sandbox import Attempt, Sandbox, attempt

OUTCOMES = (
    "refused", "same", "told", "silent", "traceback", "memory", "hang", "crash",
)  # fmt: skip
BAD = ("traceback", "memory", "hang", "crash")
"""Outcomes that no damage excuses; "silent" is bad only for files that hold a checksum."""
FILES_PER_PROCESS = 200  # so that what one leaves behind is in the way of few others


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


class Result(NamedTuple):
    """What came of all damaged files of a reader.

    Attributes:
        counts: how many had each outcome.
        examples: what was met badly.
        parents: files that led the reader to something new, the undamaged one included.
        memory: KiB at most.
    """

    counts: Counter[str]
    examples: dict[str, list[str]]
    parents: int
    memory: int


def fuzz(
    readers: Mapping[str, Reader],
    name: str,
    folder: Path,
    *,
    seconds: float,
    inputs: int | None,
    seed: int,
    jobs: int,
) -> Result:
    """Reads damaged files of a reader; bad ones stay in ``folder``/bad.

    Args:
        readers: all of them.
        name: the one to try.
        folder: where files are made.
        seconds: for how long it tries.
        inputs: how many files are enough; None for as many as there is time for.
        seed: of the damages.
        jobs: processes, each of which learns from its own files.

    Raises:
        RuntimeError: the undamaged file cannot be read.
    """
    work, end = folder / name, sys.maxsize if inputs is None else inputs
    files = []
    for job in range(jobs):  # in other processes than the readers, which must have one thread
        with ProcessPoolExecutor(1, get_context("fork")) as pool:
            files.append(pool.submit(_prepare, readers[name], work / f"job{job}").result())
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        parts = [
            pool.submit(
                _slice, readers[name], path, range(job, end, jobs), f"{name} {seed}", seconds, work
            )
            for job, path in enumerate(files)
        ]
        results = [part.result() for part in parts]
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for result in results:
        counts += result.counts
        for outcome, some in result.examples.items():
            examples.setdefault(outcome, []).extend(some)
    parents = 1 + sum(result.parents - 1 for result in results)
    return Result(counts, examples, parents, max(result.memory for result in results))


def _prepare(reader: Reader, folder: Path) -> Path:
    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    return reader.write(folder)


def _slice(
    reader: Reader, path: Path, numbers: range, seed: str, seconds: float, work: Path
) -> Result:
    """Makes and reads the damaged files of these numbers."""
    torch.set_num_threads(1)
    deadline = time.monotonic() + seconds
    parents, known = [path.read_bytes()], set[int]()
    with Sandbox(reader.read, path, known) as sandbox:
        sandbox.attempt()  # the first time, libraries set themselves up
        whole = sandbox.attempt()
    if whole.outcome not in ("read", "told"):
        raise RuntimeError(f"{path}: cannot be read undamaged: {whole.outcome} {whole.message}")
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    most = 0
    sandbox = Sandbox(reader.read, path, known)
    for count, number in enumerate(
        itertools.takewhile(lambda _: time.monotonic() < deadline, numbers), 1
    ):
        draw = Random(f"{seed} {number}")
        content = damaged(draw.choice(parents), draw)
        path.write_bytes(content)
        found = sandbox.attempt()
        if found.steps:
            known |= found.steps
            parents.append(content)
        if found.outcome in BAD:  # and not because of what earlier files left behind?
            sandbox.close()
            found = attempt(reader.read, path)
        if not sandbox.alive or count % FILES_PER_PROCESS == 0:
            sandbox.close()
            sandbox = Sandbox(reader.read, path, known)
        outcome = _compared(found, whole)
        counts[outcome] += 1
        most = max(most, found.memory)
        if outcome in BAD or (outcome == "silent" and reader.sealed):
            bad = work.parent / "bad" / f"{work.name}-{number}-{path.name}"
            bad.parent.mkdir(exist_ok=True)
            shutil.copy(path, bad)
            examples.setdefault(outcome, []).append(f"{bad.name}: {found.message}")
    sandbox.close()
    return Result(counts, examples, len(parents), most)


def _compared(found: Attempt, whole: Attempt) -> str:
    if found.outcome != "read":
        return found.outcome
    return "same" if found.digest == whole.digest else "silent"
