"""What a result file holds: the run, the providers, and one flat row per figure."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = 2
MODES = ("forward", "backward", "both")
METRICS = ("time", "ratio", "memory", "rate", "recall")
SHARED = ("machine", "versions", "commit")  # fields that are the same in all rows of a file

OURS, MATMUL = "usucl", "torch.mm"
GRAPH = "usucl, graph replay"
MMA_SYNC = "usucl, mma.sync"
TRITON, CHUNKED_SEARCH = "Triton search", "torch.mm in chunks, filter"
FLASHLIB, FLASHLIB_CUTEDSL = "FlashLib, Triton", "FlashLib, CuteDSL"
FAISS_GPU, CUVS = "FAISS GPU search", "cuVS search"
MEMEFF = "memeff, in batch"
EAGER, CHUNKED, COMPILED = "eager", "chunked eager", "torch.compile"
COMPILED_CHUNKS = "torch.compile in chunks"
SEARCH, SEARCH_LOSS = "FAISS search", "FAISS + loss"
METRIC_LEARNING, LIGHTLY = "pytorch-metric-learning", "lightly"


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, for which provider, problem, machine and code.

    Attributes:
        group: the comparison it belongs to: ``"shapes"``, ``"machine"``, ``"gpu"`` for all calls
            on a GPU, ``"kernels"`` for the kernels of one, ``"bank"``, or what a sweep varies.
        op: ``"hard_negative_nce"``; for a bank ``"build"``, ``"update"`` and ``"search"``; for the
            machine ``"fma_peak"``, ``"matmul"`` and ``"copy"``; or the name of a kernel.
        provider: what computes it.
        mode: ``"forward"`` (as in training: with what backward needs), ``"backward"`` alone, or
            ``"both"``. A ratio of a provider without backward sets its one call against ``versus``
            in this mode.
        shape: (N anchors, M keys, D).
        dtype: dtype of all embeddings.
        k: (intra_k, cross_k).
        order: order of the keys, a name in ``problems.ORDERS``.
        threads: number of threads; 0 on a GPU.
        metric: ``"time"``; ``"ratio"`` of its time to that of ``versus``, paired by round;
            ``"memory"``, the peak beyond the start without outputs and gradients; ``"rate"``; or,
            for a search, ``"recall"`` of the exact selection.
        value: the median, or None for the reason in ``note``.
        low, high: the 20th and 80th percentiles.
        unit: ``"ms"``, ``"us"``, ``"x"``, ``"MiB"``, ``"share"``, ``"GFLOP/s"`` or ``"GB/s"``.
        repeats: number of measurements.
        versus: for a ratio, what it is relative to.
        note: why there is no value.
        machine, versions, commit: those of the run, in words. The same for all rows, they stand
            once in the file, under ``every_row``, and in full under ``run``.
    """

    group: str
    op: str
    provider: str
    mode: str
    shape: tuple[int, int, int]
    dtype: str
    k: tuple[int, int]
    order: str
    threads: int
    metric: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    repeats: int
    versus: str = ""
    note: str = ""
    machine: str = ""
    versions: str = ""
    commit: str = ""

    def with_figures(self, values: Any, absent: str = "this system does not tell") -> Row:
        """Returns the row with the median and percentiles of ``values``, leaving out NaN.

        Without values ``note`` says why, or else ``absent``.
        """
        counted = np.asarray(values, dtype=float)
        counted = counted[np.isfinite(counted)]
        if not len(counted):
            return replace(self, note=self.note or absent)
        low, median, high = (float(f"{x:.5g}") for x in np.percentile(counted, [20, 50, 80]))
        return replace(self, value=median, low=low, high=high, repeats=len(counted))


@dataclass(frozen=True)
class Result:
    """The content of a result file.

    Attributes:
        run: machine, versions, commit, date and options, in full.
        providers: name to ``what`` it computes, what it ``cannot`` do, and why it was ``skipped``
            (empty if it was not).
        rows: the figures.
    """

    run: Mapping[str, Any]
    providers: Mapping[str, Mapping[str, str]]
    rows: Sequence[Row]

    def where(self, **wanted: Any) -> list[Row]:
        """Returns the rows whose fields have these values."""
        return [row for row in self.rows if all(getattr(row, f) == v for f, v in wanted.items())]

    def value(self, **wanted: Any) -> float | None:
        """Returns the value of the one row with these fields; None if there is no row or no value.

        Raises:
            ValueError: there is more than one such row.
        """
        found = self.where(**wanted)
        if len(found) > 1:
            raise ValueError(f"result must have at most one row with {wanted}, got {len(found)}")
        return found[0].value if found else None


def write(result: Result, path: Path) -> None:
    """Writes a new file, one line per row.

    Raises:
        FileExistsError: the file exists; results are never overwritten.
        ValueError: the rows are of several runs.
    """
    rows = [asdict(row) for row in result.rows]
    shared = {tuple(row.pop(field) for field in SHARED) for row in rows}
    if len(shared) > 1:
        raise ValueError(f"rows must be of one run, got {len(shared)}: {sorted(shared)}")
    head = {
        "schema": SCHEMA,
        "run": dict(result.run),
        "providers": dict(result.providers),
        "every_row": dict(zip(SHARED, *shared, strict=True)) if shared else {},
    }
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    start = json.dumps(head, indent=1)[: -len("\n}")]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(f'{start},\n "rows": [\n{lines}\n ]\n}}\n')


def read(path: Path) -> Result:
    """Reads a file that :func:`write` wrote.

    Raises:
        ValueError: the file is not a result or has another schema; the message names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA:
        raise ValueError(f"{path} must be a result file of schema {SCHEMA}, got {found}")
    shared = content["every_row"]
    rows = [_row(f"{path}, row {i}", {**one, **shared}) for i, one in enumerate(content["rows"])]
    return Result(content["run"], content["providers"], rows)


def _row(where: str, given: Mapping[str, Any]) -> Row:
    names = {field.name for field in fields(Row)}
    if set(given) != names:
        differ = ", ".join(sorted(set(given) ^ names))
        raise ValueError(f"{where}: missing or unknown fields {differ}")
    if given["metric"] not in METRICS or given["mode"] not in (*MODES, ""):
        raise ValueError(
            f"{where}: metric must be one of {METRICS} and mode one of {MODES}, "
            f"got {given['metric']!r} and {given['mode']!r}"
        )
    return Row(**{**given, "shape": tuple(given["shape"]), "k": tuple(given["k"])})


def publish(result: Result, out: Path, shown: str) -> None:
    """Writes a result, making the folder if necessary, and prints it as ``shown``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write(result, out)
    print(shown)
    print(f"Written: {out}", file=sys.stderr)
