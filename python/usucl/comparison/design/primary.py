"""The differences that an experiment is made for, which are named before it is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from usucl._ranges import check_range
from usucl._spelling import did_you_mean

PrimaryFigure = Literal["balanced_accuracy", "macro_f1", "macro_auroc", "auroc"]
PrimaryProbe = Literal["linear", "knn", "finetuned"]


class Primary(NamedTuple):
    """A difference ``arm - reference`` that was named before the experiment.

    Attributes:
        arm, reference: names of arms.
        task: column of the labels, or a task of temporal retrieval; empty for every column.
        figure: of a probe, or "auroc" for retrieval.
        probe: the probe, unless it is retrieval.
        share: share of the training patients that the probe was fitted on.
    """

    arm: str
    reference: str
    task: str = ""
    figure: str = "balanced_accuracy"
    probe: str = "linear"
    share: float = 1.0


def read_primary(values: Any) -> tuple[Primary, ...]:
    """Returns the differences of a config's ``primary``, a list of options by name."""
    names = list(Primary._fields)
    made = []
    for number, value in enumerate(values):
        place = f"primary.{number}"
        if not isinstance(value, Mapping):
            raise ValueError(f"{place} must hold {', '.join(names)}, got {value!r}")
        for name in value:
            if name not in names:
                hint = did_you_mean(str(name), names)
                raise ValueError(f"{place}.{name} is none of {', '.join(names)}{hint}")
        if missing := [name for name in names[:2] if name not in value]:
            raise ValueError(f"{place}.{missing[0]} must be given, got {dict(value)}")
        found = Primary(**value)
        for name, kind in (("figure", PrimaryFigure), ("probe", PrimaryProbe)):
            if (given := getattr(found, name)) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise ValueError(f"{place}.{name} must be one of {known}, got {given!r}")
        check_range(f"{place}.share", found.share, 0, 1)
        made.append(found)
    return tuple(made)
