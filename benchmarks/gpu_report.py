"""A result file of the GPU suite as Markdown; measures nothing, and needs no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.rows import OURS, Result, Row

FIGURES = ("forward, ms", "both, ms", "over ours", "MiB")


def summary(result: Result) -> str:
    """What became of every stage, the times, the device's own rates, the machine."""
    stages = [
        (one["stage"], one["status"], f"{one.get('seconds', 0):.0f}", one["detail"])
        for one in result.run["stages"]
    ]
    times, rates = result.where(group="gpu"), result.where(metric="rate")
    parts = [_table(("stage", "status", "s", ""), stages)]
    if times:
        problems: dict[object, list[Row]] = {}
        for row in times:
            problems.setdefault((row.shape, row.k, row.dtype, row.order), []).append(row)
        lines = [line for rows in problems.values() for line in _providers(rows)]
        head = ("N x M x D", "k", "dtype", "keys", "", *FIGURES, "")
        parts += [
            _table(head, lines),
            "Times by GPU events (in a dry run by the clock), median [20th, 80th percentile], the "
            "L2 cache overwritten before each; MiB: peak beyond the start, without gradients. A "
            "provider without backward is set against our forward.",
        ]
    reached = [f"{r.op} {r.dtype} {r.value:.5g} {r.unit}" for r in rates if r.value is not None]
    return "\n\n".join([*parts, "; ".join([*reached, *_machine(result)]) + "."])


def _providers(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each provider of one problem."""
    lines: list[tuple[str, ...]] = []
    for provider in dict.fromkeys(row.provider for row in rows):
        own = [row for row in rows if row.provider == provider]
        mode = "both" if _find(own, "both", "time") else "forward"
        ours = _find([row for row in rows if row.provider == OURS], mode, "time")
        mine, memory = _find(own, mode, "time"), _find(own, "both", "memory")
        factor = f"{mine.value / ours.value:.3g} x" if mine and ours else "-"  # type: ignore[operator]
        lines.append(
            (
                " x ".join(map(str, own[0].shape)),
                " + ".join(map(str, own[0].k)),
                own[0].dtype,
                own[0].order,
                provider,
                _spread(_find(own, "forward", "time")),
                _spread(_find(own, "both", "time")),
                factor,
                "-" if memory is None else f"{memory.value:.0f}",
                "; ".join(row.note for row in own if row.note),
            )
        )
    return lines


def _find(rows: Sequence[Row], mode: str, metric: str) -> Row | None:
    """The row, if it has a value."""
    found = (row for row in rows if (row.mode, row.metric) == (mode, metric))
    return next((row for row in found if row.value is not None), None)


def _spread(row: Row | None) -> str:
    return "-" if row is None else f"{row.value:.4g} [{row.low:.4g}, {row.high:.4g}]"


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
