"""How calls are timed on a GPU, and how they are captured as a graph."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Step

WARM_UPS, FEWEST, MOST = 3, 5, 200  # calls


class HostEvent:
    """A ``torch.cuda.Event`` for the CPU."""

    def record(self) -> None:
        self.time = time.perf_counter()

    def elapsed_time(self, end: HostEvent) -> float:
        return 1e3 * (end.time - self.time)


@dataclass
class Clock:
    """Times calls on a device.

    On a GPU this is by its events: from the end of what was queued before to the end of the call,
    including waits for the host. Before each sample, memory of twice the size of the L2 cache is
    overwritten, so that no call finds its inputs there because the one before left them.
    """

    device: torch.device
    _flushed: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.device.type == "cuda":
            size = torch.cuda.get_device_properties(self.device).L2_cache_size
            self._flushed = torch.zeros(2 * size, dtype=torch.int8, device=self.device)

    def samples(self, step: Step, seconds: float) -> np.ndarray:
        """Returns milliseconds of forward and backward, ``[samples, 2]``, in about ``seconds``."""
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

    def flush(self) -> None:
        """Flushes L2 by a kernel that no call has, so that a profile can tell it apart."""
        if self._flushed is not None:
            self._flushed.bitwise_not_()

    def _sample(self, step: Step) -> list[Any]:
        self.flush()
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


def replay(step: Step, *, backward: bool) -> Step:
    """Returns the step's launches, captured with or without the gradient.

    Raises:
        AssertionError: its result differs from the step's.
    """

    def whole() -> Any:
        loss = step.forward()
        return torch.autograd.grad(loss, step.leaf) if backward and step.leaf is not None else loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            wanted = whole()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = whole()

    def call() -> Any:
        graph.replay()
        return kept

    found, wanted = (one[0] if backward else one for one in (call(), wanted))
    if not torch.equal(found, wanted):
        raise AssertionError(f"a replay gives another {'gradient' if backward else 'loss'}")
    return Step(call)
