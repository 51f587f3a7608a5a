"""What is concluded from: finished runs of several arms, and what is to be known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from usucl.comparison.design.arms import Group
from usucl.comparison.design.primary import Primary
from usucl.comparison.measurement.predictions import RunResult
from usucl.data.catalog.patients import Patients


class Entrant(NamedTuple):
    """An arm as tables and figures know it.

    Attributes:
        name: as in :attr:`RunResult.arm`.
        title: in tables.
        group: "baseline" (not pretrained here, or supervised), "peer" (a method of others) or
            "ours".
    """

    name: str
    title: str
    group: Group


@dataclass(frozen=True)
class Experiment:
    """A comparison that has run, in whole or in part.

    Attributes:
        title: what was compared, for a heading.
        results: the finished runs.
        arms: in the order of the tables.
        primary: the differences that the experiment was made for.
        facts: data, encoder, steps, folds, machine and the like, by their names on the page.
        patients: whether the patients of the videos are known.
        synthetic: whether the videos are made up.
        steady: tasks whose label changes in no video, although frames may have labels.
        resamples: of the seeds, and of the patients.
    """

    title: str
    results: tuple[RunResult, ...]
    arms: tuple[Entrant, ...]
    primary: tuple[Primary, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    patients: Patients = "known"
    synthetic: bool = False
    steady: tuple[str, ...] = ()
    resamples: int = 2000

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"arms must have different names, got {', '.join(names)}")
        for what, used in (
            ("results", {result.arm for result in self.results}),
            ("primary", {name for p in self.primary for name in (p.arm, p.reference)}),
        ):
            if unknown := sorted(used - set(names)):
                raise ValueError(f"{what} must be of the arms {', '.join(names)}, got {unknown[0]}")
        runs = [(r.arm, r.seed, r.fold) for r in self.results]
        if len(set(runs)) < len(runs):
            twice = next(run for run in runs if runs.count(run) > 1)
            raise ValueError(f"results must hold each run once, got {twice} twice")

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs."""
        return tuple(sorted({result.seed for result in self.results}))

    @property
    def tested(self) -> tuple[str, ...]:
        """The patients that any run was measured on."""
        names = {name for r in self.results for p in r.predictions for name in p.patient}
        names |= {name for r in self.results for by in r.retrieval.values() for name in by}
        return tuple(sorted(names))

    def title_of(self, arm: str) -> str:
        """Returns the title of an arm."""
        return next(entrant.title for entrant in self.arms if entrant.name == arm)
