"""The differences that an experiment is made for, which are named before it is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from usucl._spelling import did_you_mean

PrimaryFigure = Literal["balanced_accuracy", "macro_f1", "macro_auroc", "auroc"]


class Primary(NamedTuple):
    """A difference ``arm - reference`` that was named before the experiment.

    Attributes:
        arm, reference: names of arms.
        task: column of the labels, or a task of temporal retrieval; empty for every column.
        figure: a figure of the linear probe that was fitted on all patients; "auroc" for retrieval.
    """

    arm: str
    reference: str
    task: str
    figure: str


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
        figure = value.get("figure", "balanced_accuracy")
        if figure not in get_args(PrimaryFigure):
            known = ", ".join(get_args(PrimaryFigure))
            raise ValueError(f"{place}.figure must be one of {known}, got {figure!r}")
        made.append(Primary(value["arm"], value["reference"], value.get("task", ""), figure))
    return tuple(made)
