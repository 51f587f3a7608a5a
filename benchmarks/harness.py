"""How things are measured: providers take turns in one run, on a machine that is described."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import usucl_ext

ROOT = Path(__file__).resolve().parents[1]
Step = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, of which provider, on which problem.

    Attributes:
        op: the operation.
        provider: who computes it.
        mode: ``"forward"`` or ``"forward+backward"``; of a bare matmul, the one it took turns with.
        shape: sizes of the problem by name.
        dtype: of the embeddings.
        metric: ``"time"`` (milliseconds) or ``"memory"`` (peak beyond the start, MiB).
        median, low, high: median, 20th and 80th percentile.
        repeats: measurements behind them.
    """

    op: str
    provider: str
    mode: str
    shape: Mapping[str, int]
    dtype: str
    metric: str
    unit: str
    median: float
    low: float
    high: float
    repeats: int


def time_in_turns(
    providers: Mapping[str, Step], *, seconds: float, max_repeats: int = 200
) -> dict[str, list[float]]:
    """Milliseconds of each provider's calls, in rounds of one call each.

    Whatever else the machine does, or how warm it is, meets all of them alike, so their ratios
    hold better than their times. The first round is not counted.

    Args:
        providers: name to a call.
        seconds: time for all rounds together; at least three are run.
        max_repeats: rounds at most.
    """
    times: dict[str, list[float]] = {name: [] for name in providers}
    end = time.perf_counter() + seconds
    for number in range(-1, max_repeats):
        if number >= 3 and time.perf_counter() > end:
            break
        for name, step in providers.items():
            start = time.perf_counter()
            step()
            elapsed = 1e3 * (time.perf_counter() - start)
            if number >= 0:
                times[name].append(elapsed)
    return times


def percentiles(values: list[float]) -> tuple[float, float, float]:
    """Median, 20th and 80th percentile."""
    low, median, high = np.percentile(values, [20, 50, 80])
    return float(median), float(low), float(high)


def peak_extra_memory(step: Step) -> float | None:
    """Greatest growth of the resident memory during one call, in MiB, read every millisecond.

    Outputs and gradients are included; memory that is held for less than that may be missed. None
    where the system does not tell (other than Linux).
    """
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    with contextlib.suppress(AttributeError):  # memory that glibc keeps would not be seen again
        ctypes.CDLL(None).malloc_trim(0)
    page = os.sysconf("SC_PAGE_SIZE")

    def resident() -> int:
        return int(statm.read_bytes().split()[1]) * page

    start = peak = resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        step()
    finally:
        done.set()
        watcher.join()
    return (max(peak, resident()) - start) / 2**20


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    info = usucl_ext.build_info()
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "usucl": usucl_ext.__version__,
        "cpu_capability": info["cpu_capability"],
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": info["versions"],
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def record(machine: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """A result file's content."""
    return {"machine": dict(machine), "rows": [asdict(row) for row in rows]}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    family = f"family {named.get('cpu family')}, model {named.get('model')}"
    return f"{named.get('model name', platform.machine())} ({family})"


def _commit() -> str | None:
    """The sources measured; with ``+changes`` where they differ from the commit."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "csrc", "usucl_ext", "benchmarks/*.py")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
