"""How things are measured: providers take turns in one run, on a machine that is described."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import gc
import importlib.metadata
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import usucl_ext

ROOT = Path(__file__).resolve().parents[1]
SHORTEST_SAMPLE = 3e-3  # seconds; quicker calls are repeated and divided by their number
FEWEST_ROUNDS = 3  # even the slowest provider takes part in these
PAUSE = 1e-2  # seconds, after which idle threads of the previous provider no longer spin
PEAK_SECONDS = 0.1
COPY_BYTES = 256 * 2**20
PACKAGES = ("faiss-cpu", "pytorch-metric-learning", "lightly", "usearch")
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
LIBRARY_SETTINGS = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "USUCL_CPU_")


@dataclass(frozen=True)
class Step:
    """A call to be measured.

    Attributes:
        forward: the call; the loss, or whatever else it computes.
        leaf: what backward gives a gradient to; None if there is no backward.
    """

    forward: Callable[[], Any]
    leaf: Tensor | None = None


@dataclass(frozen=True)
class Times:
    """Milliseconds per call, by round; NaN in the rounds that the provider sat out."""

    forward: np.ndarray
    backward: np.ndarray

    @property
    def both(self) -> np.ndarray:
        return self.forward + self.backward

    def mode(self, name: str) -> np.ndarray:
        """Returns the times of ``"forward"``, ``"backward"`` or ``"both"``."""
        times: np.ndarray = getattr(self, name)
        return times


def time_in_turns(
    steps: Mapping[str, Step], *, seconds: float, rounds: int = 20
) -> dict[str, Times]:
    """Returns the times of each step's calls, in rounds of at most one sample each.

    Other load and the machine's temperature affect a whole round alike, so ratios within rounds
    hold better than times. A sample is a forward call and then its backward, both timed. Calls
    beforehand, which are not counted, tell how long a step takes: slow ones take part in fewer
    rounds, evenly spread. The first step takes part in all, as ratios are to its times.

    Args:
        steps: name to call.
        seconds: for each of the other steps, but at least ``FEWEST_ROUNDS`` rounds.
        rounds: most rounds.
    """
    plan: dict[str, tuple[int, set[int]]] = {}
    for name, step in steps.items():
        call = sum(_sample(step, 1)) / 1e3  # the first may still allocate what later ones reuse
        call = min(call, sum(_sample(step, 1)) / 1e3) if call < seconds else call
        inner = max(1, round(SHORTEST_SAMPLE / call))
        count = rounds if not plan else max(FEWEST_ROUNDS, int(seconds / (inner * call)))
        plan[name] = inner, {round(x) for x in np.linspace(0, rounds - 1, min(count, rounds))}
    times = {name: Times(np.full(rounds, np.nan), np.full(rounds, np.nan)) for name in steps}
    with _no_garbage_collection():
        for number in range(rounds):
            for name, (inner, turns) in plan.items():
                if number in turns:
                    time.sleep(PAUSE)
                    forward, backward = _sample(steps[name], inner)
                    times[name].forward[number], times[name].backward[number] = forward, backward
    return times


def _sample(step: Step, inner: int) -> tuple[float, float]:
    """Returns milliseconds per call, forward and backward."""
    start = time.perf_counter()
    results = [step.forward() for _ in range(inner)]
    middle = end = time.perf_counter()
    if step.leaf is not None:
        for loss in results:
            loss.backward()
            step.leaf.grad = None
        end = time.perf_counter()
    return 1e3 * (middle - start) / inner, 1e3 * (end - middle) / inner


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Turns it off as ``timeit`` does: whatever a collection interrupts would be charged for it."""
    gc.collect()
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def peak_extra_memory(step: Step) -> float | None:
    """Returns the peak growth of resident memory in a forward and a backward call, in MiB.

    The kernel records the peak. Unused memory of the process is given back before; what an
    earlier call kept for later ones is not seen. The gradient is not counted. The result is None
    if the system does not tell (other than Linux).
    """
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    with contextlib.suppress(AttributeError):  # memory that glibc keeps would not be seen again
        ctypes.CDLL(None).malloc_trim(0)
    try:
        reset.write_text("5")  # resets the peak to what is resident now
        before = _kilobytes(status, "VmRSS")
    except OSError:
        return None
    _sample(step, 1)
    gradient = 0 if step.leaf is None else step.leaf.numel() * step.leaf.element_size()
    return max(0.0, (_kilobytes(status, "VmHWM") - before) / 1024 - gradient / 2**20)


def _kilobytes(status: Path, name: str) -> int:
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(lines[name].split()[0])


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block after ``seconds``, if this is a Unix main thread."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Runs PyTorch, and with it the loss, on ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fma_peak(threads: int, seconds: float = PEAK_SECONDS) -> float:
    """Returns the machine's GFLOP/s of float32 fused multiply-adds on ``threads`` threads.

    Raises:
        LookupError: the native module cannot measure it, or is absent.
    """
    measure = getattr(getattr(usucl_ext, "_C", None), "fma_peak", None)
    if measure is None:
        raise LookupError("usucl_ext._C.fma_peak is not there: the native module is not built")
    together = threading.Barrier(threads)

    def one(_: int) -> float:
        together.wait()
        return float(measure(seconds))

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one, range(threads)))


def copy_bandwidth() -> float:
    """Returns the GB/s that ``Tensor.copy_`` reads and writes, together."""
    source = torch.ones(COPY_BYTES // 4)
    target = torch.ones_like(source)
    start = time.perf_counter()
    target.copy_(source)
    return 2 * COPY_BYTES / (time.perf_counter() - start) / 1e9


def available_memory() -> float:
    """Returns the GiB available without swapping; infinite if the system does not tell."""
    try:
        return _kilobytes(Path("/proc/meminfo"), "MemAvailable") / 2**20
    except OSError:
        return float("inf")


class OtherPrograms:
    """How busy other programs keep the machine from here on, which distorts our figures."""

    def __init__(self) -> None:
        self._start = self._seconds()

    def cores(self) -> float | None:
        """Returns the mean number of cores taken by other programs and virtual machines.

        It is None if the system does not tell (other than Linux).
        """
        now = self._seconds()
        if now is None or self._start is None:
            return None
        wall, busy, ours = (b - a for a, b in zip(self._start, now, strict=True))
        return max(0.0, busy - ours) / wall

    @staticmethod
    def _seconds() -> tuple[float, float, float] | None:
        """Returns seconds: by the clock, of all busy or stolen cores, of this process's tree."""
        try:
            ticks = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        idle = sum(ticks[3:5])  # idle, and waiting for a disk
        busy = (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, sum(os.times()[:4])


def describe_run() -> dict[str, Any]:
    """Returns what the figures depend on: machine, versions, commit and date."""
    info = usucl_ext.build_info()
    built = info["versions"]
    assert isinstance(built, dict)
    others = {name: _version(name) for name in PACKAGES}
    return {
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "features": [name for name in FEATURES if name in _cpu_flags()],
            "cpu_capability": info["cpu_capability"],
            "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "system": f"{platform.system()} {platform.machine()}",
            "settings": {k: v for k, v in os.environ.items() if k.startswith(LIBRARY_SETTINGS)},
            "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        },
        "versions": {
            "usucl": usucl_ext.__version__,
            **built,
            **{name: version for name, version in others.items() if version is not None},
        },
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def in_words(run: Mapping[str, Any]) -> dict[str, str]:
    """Returns a run's machine, versions and commit, each as one line: fields of every row."""
    machine, versions = run["machine"], run["versions"]
    capability = machine["cpu_capability"]
    named = ("usucl", "torch", *PACKAGES)
    return {
        "machine": f"{machine['cpu']}, {machine['cores']} cores, {capability}",
        "versions": ", ".join(f"{name} {versions[name]}" for name in named if name in versions),
        "commit": run["commit"] or "",
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_facts() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _cpu_flags() -> set[str]:
    facts = _cpu_facts()
    return set(facts.get("flags", facts.get("Features", "")).split())


def _cpu_model() -> str:
    facts = _cpu_facts()
    name = facts.get("model name") or platform.processor() or platform.machine()
    if "cpu family" not in facts:
        return name
    return f"{name} (family {facts['cpu family']}, model {facts.get('model')})"


def _commit() -> str | None:
    """Returns the commit, with ``+changes`` if the measured sources differ from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "csrc", "usucl_ext", "benchmarks/*.py")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
