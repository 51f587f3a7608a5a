"""What a run has come to, in a table at its end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from usucl._files import DamagedFileError, read_json
from usucl._progress import duration
from usucl._tables import read_table
from usucl._terminal import table
from usucl.run_folder import RunFolder

SIMILARITIES = {
    "positive_similarity": "positive",
    "intra_similarity": "intra-video",
    "cross_similarity": "cross-video",
}


def show_summary(run: RunFolder) -> None:
    """Prints the table of a run that was trained."""
    if rows := list(summary_rows(run)):
        table(["", ""], rows, title=f"{run.path}, in the end")


def summary_rows(run: RunFolder) -> Iterator[tuple[str, str]]:
    """Yields the rows of the table; what the run lacks is left out."""
    facts, metrics = _facts(run), _rows(run, "metrics")
    if "seconds" in facts:
        speeds = [value for row in metrics if (value := _number(row, "images_per_second"))]
        speed = f", {float(np.median(speeds)):.3g} images/s" if speeds else ""
        yield "time", f"{duration(float(facts['seconds']))}{speed}"
        yield "epochs", f"{facts.get('epochs_done')}, of {facts.get('steps_done')} steps in all"
    if metrics:
        first, last = metrics[0], metrics[-1]
        yield (
            "loss",
            f"{_said(last, 'loss')} at step {last['step']}, {_said(first, 'loss')} at "
            f"step {first['step']}",
        )
        found = [
            f"{name} {_said(last, column)}" for column, name in SIMILARITIES.items() if last[column]
        ]
        yield "similarities", ", ".join(found)
        yield "effective rank", f"{_said(last, 'effective_rank')} of a batch"
    yield from _probes(_rows(run, "probe"))
    if told := _rows(run, "warnings"):
        number = f"{len(told)} warning{'s' if len(told) > 1 else ''}"
        step = told[-1]["step"]
        yield "warnings", f"{number} in {run.warnings.name}, the last one at step {step}"


def _probes(rows: list[dict[str, str]]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(row["probe"] for row in rows):
        own = [row for row in rows if row["probe"] == name and row["balanced_accuracy"]]
        if not own:
            continue
        best = max(own, key=lambda row: float(row["balanced_accuracy"]))
        first, last = own[0], own[-1]
        yield (
            f"probe ({name})",
            f"balanced accuracy {_said(first, 'balanced_accuracy')} after {_epochs(first)}, best "
            f"{_said(best, 'balanced_accuracy')} after {_epochs(best)}, last "
            f"{_said(last, 'balanced_accuracy')}; chance {_said(last, 'chance')}",
        )


def _epochs(row: dict[str, str]) -> str:
    done = row["epochs_done"]
    return f"{done} epoch{'' if done == '1' else 's'}"


def _number(row: dict[str, str], column: str) -> float | None:
    try:
        value = float(row.get(column) or "nan")
    except ValueError:
        return None
    return None if math.isnan(value) else value


def _said(row: dict[str, str], column: str) -> str:
    value = _number(row, column)
    return "unknown" if value is None else f"{value:.3g}"


def _facts(run: RunFolder) -> dict[str, Any]:
    try:
        return read_json(run.facts)
    except (FileNotFoundError, DamagedFileError):  # an earlier version's run has none
        return {}


def _rows(run: RunFolder, name: str) -> list[dict[str, str]]:
    try:
        return read_table(getattr(run, name), ["step"], growing=True)
    except (FileNotFoundError, DamagedFileError):
        return []
