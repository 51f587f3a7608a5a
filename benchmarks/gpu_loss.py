"""Times of the loss on a GPU at one shape, each provider's result checked before it is timed.

``python -m benchmarks.gpu_loss --shape 512 65536 --rows FILE`` appends rows to FILE as they come,
one JSON object a line. The same code runs on the CPU (``--device cpu``), for tests of itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_machine import COMPARED
from benchmarks.gpu_searches import SEARCHES, expected
from benchmarks.harness import Step
from benchmarks.problems import DTYPES, TEMPERATURE, Problem, Setting
from benchmarks.providers import PROVIDERS, options
from benchmarks.rows import COMPILED, GRAPH, MATMUL, MODES, OURS, WARPGROUPS, Row
from benchmarks.suite import OP, allowed_loss, compare
from usucl_ext import hard_negative_nce

SWEPT = (OURS, GRAPH, MATMUL)
WARM_UPS, FEWEST, MOST = 3, 5, 200  # calls
CHECKED_ANCHORS = 48  # spread over all; the CPU's kernels are the judge
MATMUL_SIZE, COPY_BYTES = 8192, 2**31


class HostEvent:
    """As ``torch.cuda.Event``, on the CPU."""

    def record(self) -> None:
        self.time = time.perf_counter()

    def elapsed_time(self, end: HostEvent) -> float:
        return 1e3 * (end.time - self.time)


@dataclass
class Clock:
    """Times calls on a device.

    On a GPU with its events, that is from the end of what was queued before to the end of the
    call, waiting for the host included. Before each sample memory of twice the L2 cache is
    overwritten, so that no call finds its inputs there because the one before left them.
    """

    device: torch.device
    _flushed: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.device.type == "cuda":
            size = torch.cuda.get_device_properties(self.device).L2_cache_size
            self._flushed = torch.empty(2 * size, dtype=torch.int8, device=self.device)

    def samples(self, step: Step, seconds: float) -> np.ndarray:
        """Milliseconds of forward and backward, ``[samples, 2]``, in about so many seconds."""
        for _ in range(WARM_UPS):
            self._sample(step)
        self.wait()
        rows: list[tuple[float, float]] = []
        end = time.perf_counter() + seconds
        while len(rows) < FEWEST or (len(rows) < MOST and time.perf_counter() < end):
            marks = [self._sample(step) for _ in range(FEWEST)]
            self.wait()
            rows += [(a.elapsed_time(b), b.elapsed_time(c)) for a, b, c in marks]
        return np.array(rows)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _sample(self, step: Step) -> list[Any]:
        if self._flushed is not None:
            self._flushed.zero_()
        marks = [self._event() for _ in range(3)]
        marks[0].record()
        result = step.forward()
        marks[1].record()
        if step.leaf is not None:
            result.backward()
        marks[2].record()
        if step.leaf is not None:
            step.leaf.grad = None
        return marks

    def _event(self) -> Any:
        if self.device.type == "cuda":
            return torch.cuda.Event(enable_timing=True)
        return HostEvent()


def check(problem: Problem, device: torch.device) -> None:
    """Selection, loss and gradient on the device against the CPU's kernels, for some anchors.

    Args:
        problem: on the CPU.

    Raises:
        AssertionError: the selection differs at all, or loss or gradient beyond rounding.
    """
    setting = problem.setting
    rows = torch.linspace(0, setting.n - 1, min(setting.n, CHECKED_ANCHORS)).round().long()
    theirs = _loss_of_each(problem.of_anchors(rows))
    ours = _loss_of_each(problem.to(device))
    for name, found, wanted in zip(ours[1]._fields, ours[1], theirs[1], strict=True):
        differ = (found.cpu()[rows] != wanted).sum().item()
        if differ:
            raise AssertionError(f"{name}: {differ} of {wanted.numel()} differ in {setting}")
    bound = allowed_loss(setting)
    compare("loss", setting, ours[0].cpu()[rows], theirs[0], bound)
    bound = (bound + torch.finfo(theirs[2].dtype).eps) / TEMPERATURE
    compare("gradient", setting, ours[2].cpu()[rows], theirs[2], bound)


def _loss_of_each(problem: Problem) -> tuple[Tensor, Any, Tensor]:
    """Losses ``[N]``, selection, gradient of the losses' sum to the anchors ``[N, D]``."""
    loss, selection = hard_negative_nce(
        problem.anchors,
        problem.positives,
        problem.keys,
        reduction="none",
        return_selection=True,
        impl="native",
        **options(problem),
    )
    (gradient,) = torch.autograd.grad(loss.sum(), problem.anchors.embedding)
    return loss.detach(), selection, gradient


def replay(step: Step, *, backward: bool) -> Step:
    """The step's launches, captured; with the gradient or without."""

    def whole() -> Any:
        loss = step.forward()
        return torch.autograd.grad(loss, step.leaf) if backward and step.leaf is not None else loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            whole()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = whole()

    def call() -> Any:
        graph.replay()
        return kept

    return Step(call)


def sweep(base: Setting) -> list[Setting]:
    """Problems that differ from one in k, D, N, M or dtype alone."""
    return [
        *(replace(base, cross_k=k) for k in (4, 16, 128, 1024)),
        *(replace(base, d=d) for d in (64, 256, 512)),
        *(replace(base, n=n) for n in (base.n // 16, 4 * base.n)),
        *(replace(base, m=m) for m in (base.m // 8, 4 * base.m)),
        replace(base, dtype="float16"),
    ]


def measure(
    setting: Setting,
    device: torch.device,
    seconds: float,
    keep: Callable[[Row], None],
    providers: Sequence[str] = COMPARED,
) -> None:
    """Checks, then times every provider, giving each row to ``keep`` as it comes.

    Args:
        seconds: to measure in, all providers together; warming up comes on top.
        providers: of ``COMPARED``.

    Raises:
        AssertionError: a result is wrong.
        RuntimeError: ours fails; where another does, a row says why.
    """
    on_cpu = Problem.make(setting)
    check(on_cpu, device)
    problem, clock = on_cpu.to(device), Clock(device)
    judged: Tensor | None = None
    each = seconds / (len(providers) + 1)
    for name in providers:
        row = Row("gpu", OP, name, "both", setting.shape, setting.dtype, setting.k, setting.order,
                  0 if device.type == "cuda" else torch.get_num_threads(),
                  "time", None, None, None, "ms", 0)  # fmt: skip
        try:
            if name == GRAPH:
                _measure_graph(problem, clock, row, each, keep)
                continue
            if name == COMPILED and device.type != "cuda":
                keep(replace(row, note="half a minute of compiling: left to GPUs"))
                continue
            if name in SEARCHES:
                _measure_search(problem, clock, row, each, keep)
                continue
            if name == WARPGROUPS:
                _measure_warpgroups(problem, clock, row, each, keep)
                continue
            step = PROVIDERS[name].make(problem)
            judge = PROVIDERS[name].expected
            if judge is not None:
                if judged is None:
                    with torch.no_grad():
                        judged = judge(problem)
                bound = _allowed(setting, name)
                compare(f"loss of {name}", setting, step.forward().detach(), judged, bound)
            if device.type == "cuda" and step.leaf is not None:
                keep(replace(row, metric="memory", unit="MiB").with_figures([_peak(step, device)]))
            times = clock.samples(step, each)
            both = times.sum(1)
            for mode, values in zip(MODES, (times[:, 0], times[:, 1], both), strict=True):
                if step.leaf is not None or mode == "forward":
                    keep(replace(row, mode=mode).with_figures(values))
        except RuntimeError as error:
            if name == OURS:
                raise
            lines = str(error).strip().splitlines() or [""]
            keep(replace(row, note=f"{type(error).__name__}: {lines[0]}"[:200]))
        finally:
            step = judge = None  # type: ignore[assignment]
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _measure_graph(
    problem: Problem, clock: Clock, row: Row, seconds: float, keep: Callable[[Row], None]
) -> None:
    if clock.device.type != "cuda":
        keep(replace(row, note="a CUDA graph needs a CUDA device"))
        return
    ours = PROVIDERS[OURS].make(problem)
    for mode in ("forward", "both"):
        times = clock.samples(replay(ours, backward=mode == "both"), seconds)
        keep(replace(row, mode=mode).with_figures(times[:, 0]))


def _measure_search(
    problem: Problem, clock: Clock, row: Row, seconds: float, keep: Callable[[Row], None]
) -> None:
    search = SEARCHES[row.provider](problem)
    bound = 4 * torch.finfo(DTYPES[problem.setting.dtype]).eps
    wanted = expected(row.provider, problem)
    compare(f"similarities of {row.provider}", problem.setting, search()[0], wanted, bound)
    keep(replace(row, mode="forward").with_figures(clock.samples(Step(search), seconds)[:, 0]))


def _measure_warpgroups(
    problem: Problem, clock: Clock, row: Row, seconds: float, keep: Callable[[Row], None]
) -> None:
    """The graph again, with Hopper's own instructions; its result is checked first."""
    device = clock.device
    if device.type != "cuda" or torch.cuda.get_device_capability(device) != (9, 0):
        keep(replace(row, note="warpgroups need a GPU of compute capability 9.0"))
        return
    os.environ["USUCL_CUDA_WARPGROUPS"] = "1"
    try:
        check(Problem.make(problem.setting), device)
        _measure_graph(problem, clock, row, seconds, keep)
    finally:
        del os.environ["USUCL_CUDA_WARPGROUPS"]


def _allowed(setting: Setting, name: str) -> float:
    """Eager rounds its similarities, and the loss after them, to the embeddings' dtype."""
    rounded = 4 * torch.finfo(DTYPES[setting.dtype]).eps / TEMPERATURE
    return allowed_loss(setting) + (0.0 if name == OURS else rounded)


def _peak(step: Step, device: torch.device) -> float:
    """MiB beyond the start of a forward and backward call, without the gradient."""
    assert step.leaf is not None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step.forward().backward()
    most = torch.cuda.max_memory_allocated(device) - before
    step.leaf.grad = None
    return max(0.0, (most - step.leaf.numel() * step.leaf.element_size()) / 2**20)


def ceilings(device: torch.device, seconds: float, keep: Callable[[Row], None]) -> None:
    """What the device reaches in a matmul of random numbers and in a copy."""
    tiny = device.type != "cuda"
    size, clock = 256 if tiny else MATMUL_SIZE, Clock(device)
    for dtype in ("bfloat16", "float32"):
        a, b = torch.randn(2, size, size, device=device).to(DTYPES[dtype])
        product = torch.empty_like(a)
        one = Step(lambda a=a, b=b, product=product: torch.mm(a, b, out=product))  # type: ignore[misc]
        rate = 2 * size**3 / clock.samples(one, seconds / 3)[:, 0] / 1e6
        keep(_rate("matmul", dtype, "GFLOP/s", rate))
    source = torch.ones((2**20 if tiny else COPY_BYTES) // 4, device=device)
    target = torch.empty_like(source)
    times = clock.samples(Step(lambda: target.copy_(source)), seconds / 3)[:, 0]
    keep(_rate("copy", "float32", "GB/s", 2 * source.nbytes / times / 1e6))


def _rate(op: str, dtype: str, unit: str, values: np.ndarray) -> Row:
    row = Row("machine", op, "machine", "", (0, 0, 0), dtype, (0, 0), "", 0,
              "rate", None, None, None, unit, 0)  # fmt: skip
    return row.with_figures(values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0; an error of ours, or a wrong result of anyone, is raised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_loss", description=__doc__)
    parser.add_argument("--shape", type=int, nargs=2, metavar=("N", "M"), help="D is 128")
    parser.add_argument("--ceilings", action="store_true", help="matmul and copy rates instead")
    parser.add_argument("--sweep", action="store_true", help="vary k, D, N, M and dtype around it")
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"], choices=DTYPES)
    parser.add_argument("--order", default="random", help="of the keys, as in problems.ORDERS")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=20, help="to measure in, for each dtype")
    parser.add_argument("--rows", type=Path, required=True, metavar="FILE", help="appended to")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)

    with given.rows.open("a", encoding="utf-8") as file:

        def keep(row: Row) -> None:
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
            figure = row.note if row.value is None else f"{row.value:.5g} {row.unit}"
            print(f"{row.provider:<20} {row.dtype:<9} {row.mode:<9} {row.metric:<7} {figure}")

        if given.ceilings:
            ceilings(device, given.seconds, keep)
            return 0
        if given.shape is None:
            parser.error("--shape N M or --ceilings is needed")
        for dtype in given.dtype:
            n, m = given.shape
            print(f"{n} x {m}, {dtype}, keys in {given.order} order", flush=True)
            setting = Setting(n, m, dtype=dtype, order=given.order)
            if not given.sweep:
                measure(setting, device, given.seconds, keep)
                continue
            for one in sweep(setting):
                print(f"{one.shape}, k {one.k}, {one.dtype}", flush=True)
                measure(one, device, given.seconds, keep, SWEPT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
