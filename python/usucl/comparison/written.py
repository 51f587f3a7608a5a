"""The conclusions of a comparison as tables and as one JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from usucl._files import write_json
from usucl._tables import write_table
from usucl.comparison.analysis.conclusion import Conclusion
from usucl.comparison.analysis.measures import Measure
from usucl.comparison.folder import ComparisonFolder
from usucl.evaluation.bootstrap import Estimate

_MEASURE = Measure._fields
_ESTIMATE = ("value", "low", "high")
_ADJUSTED = ("adjusted_low", "adjusted_high")
FIGURES = (*_MEASURE, "arm", *_ESTIMATE, "patients", "note")
DIFFERENCES = (
    "primary",
    *_MEASURE,
    "arm",
    "reference",
    *_ESTIMATE,
    *_ADJUSTED,
    "verdict",
    "runs",
    "patients",
    "note",
)


def write_tables(folder: ComparisonFolder, conclusion: Conclusion) -> None:
    """Writes ``figures.csv``, ``differences.csv`` and ``comparison.json``.

    Raises:
        OSError: a file cannot be written.
    """
    figures = [
        (*measure, arm, *_values(e, _ESTIMATE), e.groups, e.note or "")
        for measure, by_arm in conclusion.figures.items()
        for arm, e in by_arm.items()
    ]
    differences = [
        (
            "yes" if d.is_primary else "no",
            *d.measure,
            d.arm,
            d.reference,
            *_values(d.estimate, _ESTIMATE + _ADJUSTED),
            d.verdict,
            d.runs,
            d.estimate.groups,
            d.estimate.note or "",
        )
        for d in conclusion.differences
    ]
    write_table(folder.figures, FIGURES, figures)
    write_table(folder.differences, DIFFERENCES, differences)
    runs = [
        {
            "arm": r.arm,
            "seed": r.seed,
            "fold": r.fold,
            "seconds": round(r.seconds, 2),
            "images_per_second": round(r.images_per_second, 1),
            "spread": {name: round(value, 4) for name, value in r.spread.items()},
            "curve": [[step, round(loss, 4)] for step, loss in r.curve],
        }
        for r in conclusion.experiment.results
    ]
    options = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    options["data"] = conclusion.experiment.facts.get("data")  # not where it lies
    write_json(
        folder.conclusion,
        {
            "title": conclusion.experiment.title,
            "facts": dict(conclusion.experiment.facts),
            "options": options,
            "figures": _records(FIGURES, figures),
            "differences": _records(DIFFERENCES, differences),
            "runs": runs,
        },
    )


def _values(estimate: Estimate, names: Sequence[str]) -> list[float | None]:
    values = (getattr(estimate, name) for name in names)
    return [None if value is None else round(value, 4) for value in values]


def _records(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in rows]
