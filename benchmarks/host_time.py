"""Host time of a call on CUDA tensors, without a GPU: ``python -m benchmarks.host_time``.

On the runtime of stub_cuda.py a launch takes no time; a real driver adds about 2 us per launch.
What is printed is the time of everything else.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from usucl_ext import Frames, _direct, _repeats, hard_negative_nce
from usucl_ext._problem import Inputs, check_problem, with_loss

from . import stub_cuda

ROUNDS = 2000
CALLS = 3  # successive calls of one part per round
DIM, INTRA_K, CROSS_K = 128, 3, 32
WINDOW, TEMPERATURE = (0.1, 0.5), 0.07
SHAPES = ((512, 65536), (32, 96))  # anchors, keys


def frames(rows: int, requires_grad: bool = False) -> Frames:
    """Returns frames whose values nobody reads."""
    embedding = torch.empty(rows, DIM, dtype=torch.bfloat16, device="cuda")
    video = torch.empty(rows, dtype=torch.int64, device="cuda")
    time = torch.empty(rows, dtype=torch.float32, device="cuda")
    return Frames(embedding.requires_grad_(requires_grad), video, time)


def parts(anchors: Frames, keys: Frames) -> dict[str, Callable[[], object]]:
    """Returns the whole call, without and with gradients, and its parts."""
    positives = torch.empty_like(anchors.embedding)
    leaves = anchors._replace(embedding=anchors.embedding.clone().requires_grad_())
    options = {"window": WINDOW, "intra_k": INTRA_K, "cross_k": CROSS_K}
    skips = {"intra_skip": 0, "cross_skip": 0, "max_similarity": None}

    def check() -> tuple[_direct.Plan, Inputs]:
        selection = check_problem(anchors, keys, **options, **skips, positives=positives)  # type: ignore[arg-type]
        absent = dict.fromkeys(("positive_weights", "margin", "soft_nn_temperature"))
        loss: dict[str, Any] = {**absent, "temperature": TEMPERATURE, "reduction": "mean"}
        problem = with_loss(selection, positives, **loss)
        inputs = problem.inputs()
        assert _direct.applies(problem, inputs)
        return _direct.Plan(problem, inputs), inputs

    def recall() -> object:
        values = (WINDOW, positives, None, None, TEMPERATURE, None)
        rest = (INTRA_K, CROSS_K, 0, 0, None, "mean", "native")
        seen = _repeats.look(anchors, keys, values, rest)
        return seen and _repeats.recall(seen)

    def forward(queries: Frames) -> torch.Tensor:
        return hard_negative_nce(queries, positives, keys, impl="native", **options)  # type: ignore[call-overload]

    plan, inputs = check()
    loss = torch.empty((), device="cuda")
    addresses = [0 if x is None else x.data_ptr() for x in inputs]
    return {
        "forward": lambda: forward(anchors),
        "  checks, where the call looks new": check,
        "  checks, where it looks like one before": recall,
        "  kernels, from their addresses on": lambda: plan.kernels.forward(
            plan.native, addresses, loss.data_ptr(), (0, 0, 0, 0), 0, 0
        ),
        "forward with the anchors' gradient": lambda: forward(leaves),
        "forward and backward": lambda: forward(leaves).backward(),
    }


def microseconds(calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Returns the sorted times of each call; the calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(50):
            call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()
            start = time.perf_counter_ns()
            for _ in range(CALLS):
                call()
            times[name].append((time.perf_counter_ns() - start) / CALLS / 1e3)
    return {name: sorted(taken) for name, taken in times.items()}


def measure() -> None:
    """Prints counts and times."""
    stub = stub_cuda.Stub()
    for rows, count in SHAPES:
        calls = parts(frames(rows), frames(count))
        calls["forward"]()
        stub.take()
        calls["forward"]()
        print(f"{rows} anchors, {count} keys: {stub.take()}")
        print(f"{'us':>42s} {'median':>8s} {'fastest tenth':>14s}")
        for name, times in microseconds(calls).items():
            tenth = times[len(times) // 10]
            print(f"{name:42s} {statistics.median(times):8.1f} {tenth:14.1f}")


def main() -> int:
    """Runs on the stub, in a process of its own."""
    if stub_cuda.VARIABLE in os.environ:
        measure()
        return 0
    reason = stub_cuda.absent_reason()
    if reason is not None:
        print(reason)
        return 1
    library = stub_cuda.build(stub_cuda.ROOT / "build" / "stub")
    command = [sys.executable, "-m", "benchmarks.host_time"]
    return subprocess.run(command, env=stub_cuda.environment(library), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
