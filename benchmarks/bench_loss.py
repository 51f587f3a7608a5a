"""The loss on the CPU: ours against plain PyTorch, and against the matmul alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import eager
from benchmarks.harness import Row, Step, peak_extra_memory, percentiles, time_in_turns
from usucl_ext import Frames, hard_negative_nce

Shape = tuple[int, int]  # (N anchors, M keys)

SHAPES: tuple[Shape, ...] = ((32, 96), (256, 16384), (512, 65536))
QUICK_SHAPES: tuple[Shape, ...] = ((32, 96), (256, 16384))
LARGE_SHAPES: tuple[Shape, ...] = ((1024, 65536), (256, 262144))
DIM, INTRA_K, CROSS_K = 128, 3, 32
OPTIONS = {"window": (0.2, 0.8), "intra_k": INTRA_K, "cross_k": CROSS_K, "temperature": 0.07}
CHUNK = 128  # anchors that chunked eager takes at a time
MAX_EAGER_PAIRS = 2**25  # eager holds some 20 bytes a pair
MODES = ("forward", "forward+backward")

Loss = Callable[[Frames, Tensor, Frames], Tensor]


@dataclass(frozen=True)
class Problem:
    """Random unit embeddings: N anchors with gradient, their positives, M keys without.

    Times are uniform in [0, 1); 64 videos among the anchors, 640 among the keys.
    """

    anchors: Frames
    positives: Tensor
    keys: Frames

    @classmethod
    def make(cls, shape: Shape, seed: int = 0) -> Problem:
        """The same problem for the same shape and seed."""
        generator = torch.Generator().manual_seed(seed)

        def unit(rows: int) -> Tensor:
            random = torch.randn(rows, DIM, generator=generator)
            return torch.nn.functional.normalize(random, dim=1)

        def frames(rows: int, videos: int) -> Frames:
            time = torch.rand(rows, generator=generator)
            return Frames(unit(rows), torch.arange(rows) % videos, time)

        n, m = shape
        anchors = frames(n, 64)
        anchors.embedding.requires_grad_()
        return cls(anchors, unit(n), frames(m, 640))


def native(anchors: Frames, positives: Tensor, keys: Frames) -> Tensor:
    """The fused operator."""
    return hard_negative_nce(anchors, positives, keys, impl="native", **OPTIONS)  # type: ignore[call-overload]


def whole_eager(anchors: Frames, positives: Tensor, keys: Frames) -> Tensor:
    """Plain PyTorch on the whole matrix of similarities."""
    return eager.hard_negative_nce(anchors, positives, keys, **OPTIONS)  # type: ignore[arg-type]


def chunked_eager(anchors: Frames, positives: Tensor, keys: Frames) -> Tensor:
    """Plain PyTorch on ``CHUNK`` anchors at a time: less memory, the same loss."""
    rows = len(positives)
    total = anchors.embedding.new_zeros(())
    for first in range(0, rows, CHUNK):
        part = slice(first, min(first + CHUNK, rows))
        some = Frames(anchors.embedding[part], anchors.video[part], anchors.time[part])
        total = total + whole_eager(some, positives[part], keys) * ((part.stop - part.start) / rows)
    return total


LOSSES: dict[str, Loss] = {"usucl": native, "eager": whole_eager, "chunked eager": chunked_eager}


def check(shape: Shape = (48, 1000)) -> None:
    """Raises AssertionError unless all providers agree on loss and gradient.

    On random embeddings no two similarities are so close that rounding changes what is selected
    more than the loss; 1e-4 is then some hundred roundings of float32 at temperature 0.07.
    """
    problem = Problem.make(shape)
    expected = _loss_and_gradient(whole_eager, problem)
    for name, loss in LOSSES.items():
        found = _loss_and_gradient(loss, problem)
        for what, a, b in zip(("loss", "gradient"), found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=f"{what} of {name} differs")


def measure(shapes: Iterable[Shape], *, seconds: float) -> Iterator[Row]:
    """Times of all providers for each shape and mode, and the memory of each.

    Args:
        shapes: problems.
        seconds: time for each of them, mode by mode.
    """
    for shape in shapes:
        problem = Problem.make(shape)
        for mode in MODES:
            steps = {name: _step(LOSSES[name], problem, mode) for name in _providers(shape)}
            memory = {name: peak_extra_memory(step) for name, step in steps.items()}
            times = time_in_turns({**steps, "torch.mm": _matmul(problem)}, seconds=seconds)
            for name, values in times.items():
                yield _row(name, mode, shape, "time", "ms", values)
            for name, value in memory.items():
                if value is not None:
                    yield _row(name, mode, shape, "memory", "MiB", [value])


def _providers(shape: Shape) -> list[str]:
    names = ["usucl", "chunked eager", "eager"]
    return names if shape[0] * shape[1] <= MAX_EAGER_PAIRS else names[:2]


def _step(loss: Loss, problem: Problem, mode: str) -> Step:
    anchors, positives, keys = problem.anchors, problem.positives, problem.keys

    def forward() -> None:
        with torch.no_grad():
            loss(anchors, positives, keys)

    def both() -> None:
        loss(anchors, positives, keys).backward()
        anchors.embedding.grad = None

    return forward if mode == "forward" else both


def _matmul(problem: Problem) -> Step:
    query, keys = problem.anchors.embedding.detach(), problem.keys.embedding
    product = torch.empty(len(query), len(keys))
    return lambda: torch.mm(query, keys.T, out=product)


def _loss_and_gradient(loss: Loss, problem: Problem) -> tuple[Tensor, Tensor]:
    value = loss(problem.anchors, problem.positives, problem.keys)
    (gradient,) = torch.autograd.grad(value, problem.anchors.embedding)
    return value.detach(), gradient


def _row(name: str, mode: str, shape: Shape, metric: str, unit: str, values: list[float]) -> Row:
    median, low, high = percentiles(values)
    sizes = {"N": shape[0], "M": shape[1], "D": DIM, "intra_k": INTRA_K, "cross_k": CROSS_K}
    return Row(
        op="hard_negative_nce",
        provider=name,
        mode=mode,
        shape=sizes,
        dtype="float32",
        metric=metric,
        unit=unit,
        median=median,
        low=low,
        high=high,
        repeats=len(values),
    )
