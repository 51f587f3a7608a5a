"""What is measured: the shapes, the sweeps around them, and that all providers agree first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import (
    Step,
    Times,
    available_memory,
    copy_bandwidth,
    fma_peak,
    peak_extra_memory,
    time_in_turns,
    time_limit,
    torch_threads,
)
from benchmarks.problems import DTYPES, ORDERS, TEMPERATURE, Problem, Setting
from benchmarks.providers import PROVIDERS
from benchmarks.rows import COMPILED, MATMUL, MODES, OURS, Row

OP = "hard_negative_nce"
WARM_UP_LIMIT = 90.0  # seconds for a provider's first call, in which torch.compile compiles
SHAPES = ((32, 96), (256, 16384), (32, 65536), (512, 65536), (1024, 65536), (256, 262144))
MIDDLE = Setting(512, 65536)
CHECKED = Setting(24, 3400)  # no two similarities at the end of the selection are within rounding


@dataclass(frozen=True)
class Entry:
    """A provider on a problem."""

    provider: str
    setting: Setting


@dataclass(frozen=True)
class Case:
    """Entries that are timed in turns; the others are relative to the first.

    Attributes:
        group: the ``group`` of its rows.
        entries: label to entry; a label says what distinguishes it from the others.
        threads: number of threads for all entries; None for PyTorch's own.
        memory: whether memory is measured too.
    """

    group: str
    entries: Mapping[str, Entry]
    threads: int | None = None
    memory: bool = False


def full() -> list[Case]:
    """Returns the cases of a full run, under 20 minutes on two slow cores."""
    names = list(PROVIDERS)
    cases = [_of_providers("shapes", Setting(*shape), names, memory=True) for shape in SHAPES]
    beside = (OURS, MATMUL)
    cases += [_of_providers("N", Setting(n, 65536), beside) for n in (32, 64, 128, 256, 512, 1024)]
    cases += [_of_providers("M", Setting(256, 2**power), beside) for power in range(14, 19)]
    cases += [_of_providers("D", replace(MIDDLE, d=d), beside) for d in (64, 128, 256, 512)]
    cases += [_of_ours("k", MIDDLE, "cross_k", (4, 8, 16, 32, 64, 128, 256))]
    cases += [_of_ours("dtype", MIDDLE, "dtype", tuple(DTYPES))]
    cases += [_of_ours("order", MIDDLE, "order", tuple(ORDERS))]
    return cases + [_of_providers("threads", MIDDLE, beside, threads=t) for t in _thread_counts()]


def quick() -> list[Case]:
    """Returns cases of under a minute: two small shapes (one for torch.compile), small sweeps."""
    small, middle = Setting(32, 96), Setting(256, 16384)
    return [
        _of_providers("shapes", small, list(PROVIDERS), memory=True),
        _of_providers("shapes", middle, [p for p in PROVIDERS if p != COMPILED], memory=True),
        _of_ours("k", middle, "cross_k", (4, 32, 256)),
        _of_ours("dtype", middle, "dtype", tuple(DTYPES)),
        _of_ours("order", middle, "order", tuple(ORDERS)),
    ]


def _of_providers(
    group: str,
    setting: Setting,
    names: Sequence[str],
    *,
    threads: int | None = None,
    memory: bool = False,
) -> Case:
    """Returns a case of several providers on one problem, relative to ours."""
    assert names[0] == OURS
    return Case(group, {name: Entry(name, setting) for name in names}, threads, memory)


def _of_ours(group: str, setting: Setting, what: str, values: Sequence[Any]) -> Case:
    """Returns a case of ours on problems that differ in one thing, relative to the first."""
    changed = {f"{group}={v}": replace(setting, **{what: v}) for v in values}
    return Case(group, {label: Entry(OURS, one) for label, one in changed.items()})


def _thread_counts() -> list[int]:
    """Returns 1, 2, 4, ... and all threads."""
    most = torch.get_num_threads()
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})


@dataclass
class Suite:
    """Runs cases, and measures the machine before each of them.

    Attributes:
        seconds: for each entry of a case.
        words: machine, versions and commit, for each row.
        skipped: provider to the reason why it cannot run.
    """

    seconds: float
    words: Mapping[str, str]
    skipped: Mapping[str, str] = field(default_factory=dict)
    _peaks: dict[int, list[float]] = field(default_factory=dict)
    _copies: list[float] = field(default_factory=list)
    _no_peak: str = ""

    def run(self, case: Case) -> Iterator[Row]:
        """Yields the rows of a case.

        Raises:
            AssertionError: a provider's loss is not what it must be.
        """
        threads = case.threads or torch.get_num_threads()
        with torch_threads(threads):
            self._measure_machine(threads)
            steps: dict[str, Step] = {}
            expected: dict[tuple[object, Setting], Tensor] = {}
            for label, entry in case.entries.items():
                if entry.provider in self.skipped:
                    continue
                row = self._row(case.group, entry, threads)
                try:
                    step, peak = _warm(entry.provider, Problem.make(entry.setting), expected)
                    steps[label] = step
                    if case.memory and entry.provider != MATMUL:  # allocated beforehand
                        both = replace(row, mode="both", metric="memory", unit="MiB")
                        yield both.with_figures([] if peak is None else [peak])
                except (RuntimeError, ImportError, OSError, MemoryError) as error:
                    if entry.provider == OURS:
                        raise
                    yield replace(row, mode="both", metric="time", unit="ms", note=_reason(error))
            times = time_in_turns(steps, seconds=self.seconds)
            base = next(iter(case.entries))
            for label, one in times.items():
                row = self._row(case.group, case.entries[label], threads)
                for mode in MODES if steps[label].leaf is not None else MODES[:1]:
                    timed = replace(row, mode=mode, metric="time", unit="ms")
                    yield timed.with_figures(one.mode(mode))
                if label != base and base in times:
                    ratio = replace(row, metric="ratio", unit="x", versus=base)
                    yield from _ratios(ratio, one, times[base], steps[label].leaf is not None)

    def machine(self) -> Iterator[Row]:
        """Yields what was measured of the machine in between: float32 FMA peak, copy bandwidth."""
        rows = {("fma_peak", t): (values, "GFLOP/s") for t, values in self._peaks.items()}
        rows["copy", torch.get_num_threads()] = self._copies, "GB/s"
        for (op, threads), (values, unit) in rows.items():
            note = "" if values else self._no_peak
            row = Row("machine", op, "machine", "", (0, 0, 0), "float32", (0, 0), "", threads,
                      "rate", None, None, None, unit, 0, note=note, **self.words)  # fmt: skip
            yield row.with_figures(values)

    def _measure_machine(self, threads: int) -> None:
        peaks = self._peaks.setdefault(threads, [])
        try:
            peaks.append(fma_peak(threads))
        except LookupError as error:
            self._no_peak = str(error)
        if threads == torch.get_num_threads():
            self._copies.append(copy_bandwidth())

    def _row(self, group: str, entry: Entry, threads: int) -> Row:
        one = entry.setting
        return Row(group, OP, entry.provider, "", one.shape, one.dtype, one.k, one.order, threads,
                   "", None, None, None, "", 0, **self.words)  # fmt: skip


def _warm(
    name: str, problem: Problem, expected: dict[tuple[object, Setting], Tensor]
) -> tuple[Step, float | None]:
    """Returns the provider's call and its peak of memory, with its result checked.

    The peak is that of the first call, so that memory kept for later calls counts; compiling
    does not. Expected results are kept in ``expected``.

    Raises:
        AssertionError: its loss is not what it must be.
        RuntimeError, OSError, ImportError, MemoryError: it fails, or would not fit in memory.
    """
    provider, setting = PROVIDERS[name], problem.setting
    needed = provider.pair_bytes * setting.n * setting.m / 2**30
    if needed > available_memory():
        raise MemoryError(f"needs about {needed:.0f} GiB, {available_memory():.0f} are available")
    with time_limit(WARM_UP_LIMIT):
        step = provider.make(problem)
        if name == COMPILED:
            step.forward().backward()
        peak = peak_extra_memory(step)
        result = step.forward()
    if provider.expected is not None:
        key = provider.expected, setting
        if key not in expected:
            with torch.no_grad():
                expected[key] = provider.expected(problem)
        compare(f"loss of {name}", setting, result.detach(), expected[key], allowed_loss(setting))
    return step, peak


def check(names: Sequence[str] = tuple(PROVIDERS), setting: Setting = CHECKED) -> None:
    """Checks loss and gradient of each provider on a small problem.

    Raises:
        AssertionError: one is wrong; the message names the provider.
    """
    problem = Problem.make(setting)
    leaf = problem.anchors.embedding
    for name in names:
        provider = PROVIDERS[name]
        if provider.expected is None or provider.skipped():
            continue
        step, expected = provider.make(problem), provider.expected(problem)
        (wanted,) = torch.autograd.grad(expected, leaf)
        loss = step.forward()
        (found,) = torch.autograd.grad(loss, leaf)
        bound = allowed_loss(problem.setting)
        compare(f"loss of {name}", problem.setting, loss.detach(), expected.detach(), bound)
        # A weight's relative error is its logit's error; a gradient's is that over N temperature.
        bound /= problem.setting.n * TEMPERATURE
        bound += torch.finfo(leaf.dtype).eps / problem.setting.n / TEMPERATURE
        compare(f"gradient of {name}", problem.setting, found, wanted, bound)


def allowed_loss(setting: Setting) -> float:
    """Returns how far two computations of a loss in float32 may differ.

    A similarity of unit vectors is off by D eps at most, in whatever order it is added up. A
    logit is a similarity over the temperature; two of them, the positive's and a negative's,
    enter in each of the two computations.
    """
    return 4 * setting.d * torch.finfo(torch.float32).eps / TEMPERATURE


def compare(what: str, setting: Setting, found: Tensor, wanted: Tensor, bound: float) -> None:
    """Raises AssertionError, naming ``what``, if two tensors differ by more than ``bound``."""
    error = (found.float() - wanted.float()).abs().max().item()
    if not error <= bound:
        raise AssertionError(f"{what} is off by {error:.3g} in {setting}, allowed {bound:.3g}")


def _ratios(row: Row, theirs: Times, ours: Times, has_backward: bool) -> Iterator[Row]:
    for mode in MODES if has_backward else ("forward", "both"):
        numerator = theirs.mode(mode) if has_backward else theirs.forward
        yield replace(row, mode=mode).with_figures(numerator / ours.mode(mode))


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def skipped() -> dict[str, str]:
    """Returns the providers that cannot run here, and why."""
    reasons = {name: provider.skipped() for name, provider in PROVIDERS.items()}
    return {name: reason for name, reason in reasons.items() if reason}
