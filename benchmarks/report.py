"""From result files to Markdown tables; measures nothing. ``python -m benchmarks.report FILE``"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ORDER = ("usucl", "torch.mm", "chunked eager", "eager")
Shape = tuple[int, int]
Rows = Sequence[Mapping[str, Any]]


def markdown(result: Mapping[str, Any]) -> str:
    """Tables of a result file's content: times with ratios to ours, memory, and the machine."""
    rows: Rows = result["rows"]
    parts = []
    for mode in dict.fromkeys(row["mode"] for row in rows):
        times = [row for row in rows if row["mode"] == mode and row["metric"] == "time"]
        parts.append(
            f"**Time, {mode}** in ms: median [20th, 80th percentile]; its median over that of "
            f"usucl\n\n{_times(times)}"
        )
    memory = [row for row in rows if row["metric"] == "memory"]
    if memory:
        parts.append(f"**Peak extra memory**, MiB\n\n{_memory(memory)}")
    parts.append(_machine(result["machine"], rows))
    return "\n\n".join(parts)


def _times(rows: Rows) -> str:
    found = {(_shape(row), row["provider"]): row for row in rows}
    providers = _providers(rows)
    lines = []
    for shape in _shapes(rows):
        ours = found.get((shape, "usucl"))
        cells = []
        for provider in providers:
            row = found.get((shape, provider))
            if row is None:
                cells.append("")
            elif ours is None or row is ours:
                cells.append(_milliseconds(row))
            else:
                cells.append(f"{_milliseconds(row)}; {row['median'] / ours['median']:.3g} x")
        lines.append([_name(shape), *cells])
    return _table(["N x M", *providers], lines)


def _memory(rows: Rows) -> str:
    found = {(_shape(row), row["mode"], row["provider"]): row["median"] for row in rows}
    providers = _providers(rows)
    lines = []
    for shape in _shapes(rows):
        for mode in dict.fromkeys(row["mode"] for row in rows):
            values = [found.get((shape, mode, provider)) for provider in providers]
            cells = ["" if value is None else f"{value:.1f}" for value in values]
            lines.append([_name(shape), mode, *cells])
    return _table(["N x M", "mode", *providers], lines)


def _machine(machine: Mapping[str, Any], rows: Rows) -> str:
    shape = rows[0]["shape"]
    setting = ", ".join(f"{key}={shape[key]}" for key in ("D", "intra_k", "cross_k"))
    load = machine["load_before"]
    busy = "" if load is None else f", load before {load:.1f}"
    return (
        f"{rows[0]['dtype']}, {setting}. {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['threads']} threads{busy}; usucl {machine['usucl']} "
        f"({machine['cpu_capability']}), commit {machine['commit']}; "
        f"torch {machine['versions']['torch']} ({machine['torch_cpu_capability']}); "
        f"{machine['date']}."
    )


def _shape(row: Mapping[str, Any]) -> Shape:
    return row["shape"]["N"], row["shape"]["M"]


def _shapes(rows: Rows) -> list[Shape]:
    return list(dict.fromkeys(map(_shape, rows)))


def _providers(rows: Rows) -> list[str]:
    present = {row["provider"] for row in rows}
    return [name for name in ORDER if name in present] + sorted(present - set(ORDER))


def _name(shape: Shape) -> str:
    return f"{shape[0]} x {shape[1]}"


def _milliseconds(row: Mapping[str, Any]) -> str:
    median, low, high = (
        f"{row[key]:.3g}" if row[key] < 1000 else f"{row[key]:.0f}"
        for key in ("median", "low", "high")
    )
    return f"{median} [{low}, {high}]"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(markdown(json.loads(Path(name).read_text(encoding="utf-8"))))
