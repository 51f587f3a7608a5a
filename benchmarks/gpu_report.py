"""A result file of the GPU suite as Markdown; measures nothing, and needs no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.rows import GRAPH, OURS, Result, Row

FIGURES = ("forward, ms", "both, ms", "TFLOP/s", "over ours", "MiB")
NOTES = (
    "Times by GPU events (in a dry run by the clock), median [20th, 80th percentile], the L2 cache "
    "overwritten before each. TFLOP/s: 2 N M D over the time of the forward call. Over ours: the "
    "time with backward if there is one, else of forward, over that of our graph, or of our calls "
    "if there is no graph. MiB: peak beyond the start, without gradients."
)


def summary(result: Result) -> str:
    """Returns every stage's outcome, the kernels, the times, the device's rates, the machine."""
    stages = [
        (one["stage"], one["status"], f"{one.get('seconds', 0):.0f}", one["detail"])
        for one in result.run["stages"]
    ]
    times, rates = result.where(group="gpu"), result.where(metric="rate")
    parts = [_table(("stage", "status", "s", ""), stages)]
    parts += _kernels(result.where(group="kernels"))
    if times:
        problems: dict[object, list[Row]] = {}
        for row in times:
            problems.setdefault((row.shape, row.k, row.dtype, row.order), []).append(row)
        lines = [line for rows in problems.values() for line in _providers(rows)]
        parts += [_table(("N x M x D", "k", "dtype", "keys", "", *FIGURES, ""), lines), NOTES]
    reached = [f"{r.op} {r.dtype} {r.value:.5g} {r.unit}" for r in rates if r.value is not None]
    return "\n\n".join([*parts, "; ".join([*reached, *_machine(result)]) + "."])


def _kernels(rows: Sequence[Row]) -> list[str]:
    """Returns microseconds of each kernel by problem, the longest first; empty without kernels."""
    columns = list(dict.fromkeys((row.shape, row.dtype, row.provider) for row in rows))
    times: dict[str, dict[object, Row]] = {}
    for row in rows:
        times.setdefault(row.op, {})[(row.shape, row.dtype, row.provider)] = row
    if not columns:
        return []

    def figure(row: Row | None) -> str:
        return "-" if row is None or row.value is None else f"{row.value:.1f}"

    most = {op: max(row.value or 0 for row in of.values()) for op, of in times.items()}
    lines = [
        (op, *(figure(times[op].get(column)) for column in columns))
        for op in sorted(times, key=lambda op: -most[op])
    ]
    heads = [
        f"{n} x {m} {dtype}" + ("" if provider == OURS else f", {provider.split(', ')[-1]}")
        for (n, m, _), dtype, provider in columns
    ]
    return [_table(("kernel, us per call", *heads), lines)]


def _providers(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Returns a line for each provider of one problem."""
    lines: list[tuple[str, ...]] = []
    measured = {row.provider for row in rows if row.value is not None}
    reference = [row for row in rows if row.provider == (GRAPH if GRAPH in measured else OURS)]
    for provider in dict.fromkeys(row.provider for row in rows):
        own = [row for row in rows if row.provider == provider]
        mode = "both" if _find(own, "both", "time") else "forward"
        ours, forward = _find(reference, mode, "time"), _find(own, "forward", "time")
        mine, memory = _find(own, mode, "time"), _find(own, "both", "memory")
        factor = f"{mine.value / ours.value:.3g} x" if mine and ours else "-"  # type: ignore[operator]
        lines.append(
            (
                " x ".join(map(str, own[0].shape)),
                " + ".join(map(str, own[0].k)),
                own[0].dtype,
                own[0].order,
                provider,
                _spread(forward),
                _spread(_find(own, "both", "time")),
                _useful(forward),
                factor,
                "-" if memory is None else f"{memory.value:.0f}",
                "; ".join(dict.fromkeys(row.note for row in own if row.note)),
            )
        )
    return lines


def _find(rows: Sequence[Row], mode: str, metric: str) -> Row | None:
    """Returns the last such row with a value: what a later stage measured again counts."""
    found = [row for row in rows if (row.mode, row.metric) == (mode, metric)]
    return next((row for row in reversed(found) if row.value is not None), None)


def _spread(row: Row | None) -> str:
    return "-" if row is None else f"{row.value:.4g} [{row.low:.4g}, {row.high:.4g}]"


def _useful(forward: Row | None) -> str:
    """Returns TFLOP/s of the similarities alone, whatever else is computed."""
    if forward is None or not forward.value:
        return "-"
    n, m, d = forward.shape
    return f"{2 * n * m * d / forward.value / 1e9:.3g}"


def _machine(result: Result) -> list[str]:
    run, versions = result.run, result.run["versions"]
    gpu = run["machine"]["gpu"]
    told = gpu.get("nvidia_smi")
    facts = [gpu.get("name") or f"no GPU: {gpu['absent']}", run["machine"]["cpu"]]
    facts += [f"{k} {v}" for k, v in told.items()] if isinstance(told, dict) else []
    facts += [told] if isinstance(told, str) else []
    facts += [f"torch {versions['torch']}", f"built with CUDA {versions['built_with_cuda']}"]
    return [*facts, f"usucl {versions['usucl']}, commit {run['commit']}", run["date"]]


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))
