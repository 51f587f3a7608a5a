"""Times of the loss on a GPU at one shape; each provider's result is checked before it is timed.

``python -m benchmarks.gpu_loss --shape 512 65536 --rows FILE`` appends rows to FILE as they come,
one JSON object per line. The same code runs on the CPU (``--device cpu``), for its tests.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_clock import Clock, replay
from benchmarks.gpu_machine import GROUPS
from benchmarks.gpu_peers import PEERS
from benchmarks.harness import Step
from benchmarks.problems import DTYPES, ORDERS, TEMPERATURE, Problem, Setting
from benchmarks.providers import PROVIDERS, options
from benchmarks.rows import COMPILED, GRAPH, MMA_SYNC, MODES, OURS, Row
from benchmarks.suite import OP, allowed_loss, compare
from usucl_ext import hard_negative_nce

CHECKED_ANCHORS = 48  # spread over all; the CPU's kernels say what is right
MATMUL_SIZE, COPY_BYTES = 8192, 2**31
Keep = Callable[[Row], None]


def check(problem: Problem, device: torch.device) -> None:
    """Checks selection, loss and gradient on the device against the CPU's, for some anchors.

    Args:
        problem: on the CPU.

    Raises:
        AssertionError: the selection differs, or loss or gradient do by more than rounding.
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
    """Returns losses ``[N]``, selection, and their sum's gradient by the anchors ``[N, D]``."""
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


def sweep(base: Setting) -> list[Setting]:
    """Returns problems that differ from one in k, D, N, M or dtype alone."""
    return [
        *(replace(base, cross_k=k) for k in (4, 16, 128, 1024)),
        *(replace(base, d=d) for d in (64, 256, 512)),
        *(replace(base, n=n) for n in (base.n // 16, 4 * base.n)),
        *(replace(base, m=m) for m in (base.m // 8, 4 * base.m)),
        replace(base, dtype="float16"),
    ]


def row_of(provider: str, setting: Setting, device: torch.device) -> Row:
    """Returns a row for a time, without any figure."""
    threads = 0 if device.type == "cuda" else torch.get_num_threads()
    return Row("gpu", OP, provider, "both", setting.shape, setting.dtype, setting.k, setting.order,
               threads, "time", None, None, None, "ms", 0)  # fmt: skip


@dataclass
class Measured:
    """A problem, and the providers' figures on it.

    Attributes:
        on_cpu: the problem, for the CPU's kernels.
        clock: of the device.
        seconds: for each provider.
    """

    on_cpu: Problem
    clock: Clock
    seconds: float
    _judged: dict[Any, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = self.clock.device
        self.problem = self.on_cpu.to(self.device)

    def rows(self, name: str) -> Iterator[Row]:
        """Yields a provider's figures, once its result is checked.

        Raises:
            AssertionError: its result is wrong.
            Exception: it cannot run; the message says why.
        """
        row = row_of(name, self.on_cpu.setting, self.device)
        if name == GRAPH:
            yield from self._graph(row)
        elif name == MMA_SYNC:
            yield from self._mma_sync(row)
        else:
            yield from self._calls(row, self._step(name))

    def _step(self, name: str) -> Step:
        if name in PEERS:
            return PEERS[name].make(self.problem)
        if name == OURS:
            check(self.on_cpu, self.device)
        if name == COMPILED and self.device.type != "cuda":
            raise RuntimeError("compiling takes half a minute: it is left to GPUs")
        provider = PROVIDERS[name]
        step = provider.make(self.problem)
        if provider.expected is not None:
            if provider.expected not in self._judged:
                with torch.no_grad():
                    self._judged[provider.expected] = provider.expected(self.problem)
            setting, wanted = self.on_cpu.setting, self._judged[provider.expected]
            found = step.forward().detach()
            compare(f"loss of {name}", setting, found, wanted, _allowed(setting, name))
        return step

    def _calls(self, row: Row, step: Step) -> Iterator[Row]:
        if self.device.type == "cuda" and step.leaf is not None:
            peak = _peak(step, self.device)
            yield replace(row, metric="memory", unit="MiB").with_figures([peak])
        times = self.clock.samples(step, self.seconds)
        for mode, values in zip(MODES, (times[:, 0], times[:, 1], times.sum(1)), strict=True):
            if step.leaf is not None or mode == "forward":
                yield replace(row, mode=mode).with_figures(values)

    def _graph(self, row: Row) -> Iterator[Row]:
        if self.device.type != "cuda":
            raise RuntimeError("a CUDA graph needs a CUDA device")
        check(self.on_cpu, self.device)
        ours = PROVIDERS[OURS].make(self.problem)
        for mode in ("forward", "both"):
            step = replay(ours, backward=mode == "both")
            yield replace(row, mode=mode).with_figures(self.clock.samples(step, self.seconds)[:, 0])

    def _mma_sync(self, row: Row) -> Iterator[Row]:
        """Yields the graph's figures without Hopper's own instructions."""
        if self.device.type != "cuda" or torch.cuda.get_device_capability(self.device) != (9, 0):
            raise RuntimeError("only a GPU of compute capability 9.0 has a choice")
        os.environ["USUCL_CUDA_WARPGROUPS"] = "0"
        try:
            yield from self._graph(row)
        finally:
            del os.environ["USUCL_CUDA_WARPGROUPS"]


def measure(
    setting: Setting, device: torch.device, seconds: float, keep: Keep, providers: Sequence[str]
) -> list[str]:
    """Checks, then times every provider, and gives each row to ``keep`` as it comes.

    Args:
        seconds: measuring time of all providers together; warming up comes on top.
        providers: names of ``COMPARED``.

    Returns:
        Each failure: a wrong result, or whatever keeps ours from running on a GPU.
    """
    measured = Measured(Problem.make(setting), Clock(device), seconds / (len(providers) + 1))
    amiss = []
    for name in providers:
        try:
            for row in measured.rows(name):
                keep(row)
        except Exception as error:  # whatever other people's programs raise
            told = [error, *([error.__cause__] if error.__cause__ else [])]
            reason = ", by ".join(f"{type(e).__name__}: {str(e).strip()[:150]}" for e in told)
            reason = " ".join(reason.split())
            keep(replace(row_of(name, setting, device), note=reason))
            ours = name in (OURS, GRAPH, MMA_SYNC) and device.type == "cuda"
            if isinstance(error, AssertionError) or ours:
                amiss.append(f"{name}: {reason}")
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return amiss


def _allowed(setting: Setting, name: str) -> float:
    """Returns the allowed error; eager rounds similarities and loss to the embeddings' dtype."""
    rounded = 4 * torch.finfo(DTYPES[setting.dtype]).eps / TEMPERATURE
    return allowed_loss(setting) + (0.0 if name == OURS else rounded)


def _peak(step: Step, device: torch.device) -> float:
    """Returns the peak MiB that a forward and backward call adds, without the gradient."""
    assert step.leaf is not None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step.forward().backward()
    most = torch.cuda.max_memory_allocated(device) - before
    step.leaf.grad = None
    return max(0.0, (most - step.leaf.numel() * step.leaf.element_size()) / 2**20)


def ceilings(device: torch.device, seconds: float, keep: Keep) -> None:
    """Measures what the device reaches in a matmul of random numbers and in a copy."""
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


@contextmanager
def rows_to(path: Path) -> Iterator[Keep]:
    """Appends rows to a file, each of them immediately."""
    with path.open("a", encoding="utf-8") as file:

        def keep(row: Row) -> None:
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()

        yield keep


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if a result is wrong or ours fails, after everything else was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_loss", description=__doc__)
    parser.add_argument("--shape", type=int, nargs=2, metavar=("N", "M"), help="D is 128")
    parser.add_argument("--group", nargs="+", default=["goals"], choices=GROUPS, help="providers")
    parser.add_argument("--ceilings", action="store_true", help="matmul and copy rates instead")
    parser.add_argument("--sweep", action="store_true", help="vary k, D, N, M and dtype around it")
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"], choices=DTYPES)
    parser.add_argument("--k", type=int, nargs="+", default=[Setting(1, 1).cross_k], help="cross_k")
    parser.add_argument("--order", nargs="+", default=["random"], choices=ORDERS, help="of keys")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=20, help="measuring time per problem")
    parser.add_argument("--rows", type=Path, required=True, metavar="FILE", help="to append to")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    providers = tuple(dict.fromkeys(name for group in given.group for name in GROUPS[group]))

    with rows_to(given.rows) as keep_row:

        def keep(row: Row) -> None:
            keep_row(row)
            figure = row.note if row.value is None else f"{row.value:.5g} {row.unit}"
            print(f"{row.provider:<26} {row.dtype:<9} {row.mode:<9} {row.metric:<7} {figure}")

        if given.ceilings:
            ceilings(device, given.seconds, keep)
            return 0
        if given.shape is None:
            parser.error("--shape N M or --ceilings is needed")
        n, m = given.shape
        amiss = []
        for dtype, order, k in product(given.dtype, given.order, given.k):
            base = Setting(n, m, cross_k=k, dtype=dtype, order=order)
            for setting in sweep(base) if given.sweep else [base]:
                print(f"{setting.shape}, k {setting.k}, {setting.dtype}, keys {order}", flush=True)
                amiss += measure(setting, device, given.seconds, keep, providers)
    for one in amiss:
        print(f"amiss: {one}")
    return 1 if amiss else 0


if __name__ == "__main__":
    sys.exit(main())
