"""The figures behind a result's rows, and whether they reach the project's goals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.rows import EAGER, MATMUL, OURS, SEARCH, Result, Row

Shape = tuple[int, int]  # (N, M), with D = 128, float32, intra_k = 3, cross_k = 32
LEAST_SHARE: dict[Shape, float] = {  # of the FMA peak, in percent
    (256, 16384): 65,
    (512, 65536): 80,
    (1024, 65536): 80,
    (256, 262144): 80,
}
MAIN = tuple(LEAST_SHARE)
MOST_MEMORY = 64.0  # MiB
FAST_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


@dataclass(frozen=True)
class Target:
    """One figure and its goal.

    Attributes:
        what: what the figure is.
        figure: the measured value; None if it was not measured.
        bound: the least or the greatest value to reach.
        least: whether ``bound`` is the least value.
        unit: ``"%"``, ``"x"`` or ``"MiB"``.
        note: why it does not apply here; empty if it does.
    """

    what: str
    figure: float | None
    bound: float
    least: bool
    unit: str
    note: str = ""

    @property
    def verdict(self) -> str:
        """``"met"``, ``"not met"``, ``"not measured"``, or why it does not apply."""
        if self.note:
            return self.note
        if self.figure is None:
            return "not measured"
        reached = self.figure >= self.bound if self.least else self.figure <= self.bound
        return "met" if reached else "not met"


def peak(result: Result, threads: int) -> float | None:
    """Returns the machine's float32 FMA peak in GFLOP/s on ``threads``, the run's median."""
    return result.value(op="fma_peak", threads=threads)


def share_of_peak(result: Result, row: Row) -> float | None:
    """Returns the percentage of the FMA peak that a time reaches, with 2 N M D as its work."""
    top = peak(result, row.threads)
    if row.value is None or top is None:
        return None
    n, m, d = row.shape
    return 100 * 2 * n * m * d / (row.value * 1e-3) / (top * 1e9)


def find_time(result: Result, shape: Shape, mode: str = "both", provider: str = OURS) -> Row | None:
    """Returns the time of a provider at a main shape."""
    found = result.where(
        group="shapes", metric="time", provider=provider, mode=mode, shape=(*shape, 128)
    )
    return found[0] if found else None


def advantage(result: Result, shape: Shape, provider: str, mode: str = "both") -> float | None:
    """Returns how many times as long as ours a provider takes at a main shape, paired by round."""
    return result.value(
        group="shapes", metric="ratio", provider=provider, mode=mode, shape=(*shape, 128)
    )


def targets(result: Result) -> list[Target]:
    """Returns all goals of the CPU operator, forward and backward together."""
    return [
        *_of_the_machine(result),
        *_against_matmul(result),
        *_against_others(result),
        *_sweeps(result),
        *_memory(result),
    ]


def _of_the_machine(result: Result) -> Iterator[Target]:
    for shape, bound in LEAST_SHARE.items():
        row = find_time(result, shape)
        figure = None if row is None else share_of_peak(result, row)
        yield Target(f"share of the float32 FMA peak, {_name(shape)}", figure, bound, True, "%")


def _against_matmul(result: Result) -> Iterator[Target]:
    figures = {shape: _inverse(advantage(result, shape, MATMUL)) for shape in MAIN}
    known = [figure for figure in figures.values() if figure is not None]
    mean = math.prod(known) ** (1 / len(known)) if len(known) == len(MAIN) else None
    yield Target("time over torch.mm alone, geometric mean of four", mean, 0.7, False, "x")
    for shape, figure in figures.items():
        yield Target(f"time over torch.mm alone, {_name(shape)}", figure, 0.9, False, "x")
    few = (32, 65536)
    figure = _inverse(advantage(result, few, MATMUL))
    yield Target(f"time over torch.mm alone, {_name(few)}", figure, 0.6, False, "x")


def _against_others(result: Result) -> Iterator[Target]:
    tiny = (32, 96)
    figure = _inverse(advantage(result, tiny, EAGER))
    yield Target(f"time over eager, {_name(tiny)}", figure, 1 / 3, False, "x")
    for provider, small, large in ((EAGER, 10, 15), (SEARCH, 3, 6)):
        for shape in MAIN:
            bound = small if shape[1] < 65536 else large
            what = f"{provider}'s time over usucl's, {_name(shape)}"
            yield Target(what, advantage(result, shape, provider), bound, True, "x")


def _sweeps(result: Result) -> Iterator[Target]:
    middle = (512, 65536, 128)

    def relative(group: str) -> list[Row]:
        return result.where(group=group, metric="ratio", mode="both", shape=middle)

    half = next((row.value for row in relative("dtype") if row.dtype == "bfloat16"), None)
    fast = FAST_BFLOAT16 & set(result.run["machine"]["features"])
    note = "" if fast else "does not apply: this CPU has neither AVX512-BF16 nor AMX"
    yield Target("bfloat16 over float32 time, 512 x 65536", half, 0.6, False, "x", note)
    many = [row.value for row in relative("k") if row.value is not None]
    most = max(many) if many else None
    yield Target("slowest k up to 256 over k = 4, 512 x 65536", most, 1.3, False, "x")
    orders = {row.order: row.value for row in relative("order")}
    for order in ("ascending", "all equal", "one video", "correlated"):
        what = f"keys {order} over random order, 512 x 65536"
        yield Target(what, orders.get(order), 2, False, "x")


def _memory(result: Result) -> Iterator[Target]:
    rows = result.where(group="shapes", metric="memory", provider=OURS)
    known = [row.value for row in rows if row.value is not None]
    most = max(known) if known else None
    yield Target("peak extra memory, any shape", most, MOST_MEMORY, False, "MiB")


def _inverse(ratio: float | None) -> float | None:
    return None if ratio is None else 1 / ratio


def _name(shape: Shape) -> str:
    return f"{shape[0]} x {shape[1]}"
