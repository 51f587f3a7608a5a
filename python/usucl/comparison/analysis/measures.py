"""The figures of every arm on common resamples of seeds and patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from usucl.comparison.analysis.experiment import Experiment
from usucl.comparison.analysis.inference import Sample, resampled, shared_variance
from usucl.comparison.analysis.tallies import Crossing, Statistic, classification, mean
from usucl.comparison.measurement.predictions import Predictions, RunResult
from usucl.evaluation.probes import Level

Run: TypeAlias = tuple[int, int]
"""Seed and fold of a run; runs of the same are paired across arms."""

RETRIEVAL = "retrieval"
"""The probe of temporal retrieval, which fits nothing."""


class Measure(NamedTuple):
    """What is measured: a figure of a probe of a task.

    Attributes:
        task: column of the labels, or a task of temporal retrieval.
        probe: as in :class:`Predictions`, or "retrieval".
        level: what a sample is.
        share: share of the labelled training patients that the probe was fitted on.
        figure: one of :data:`usucl.comparison.analysis.tallies.FIGURES`, or "auroc".
    """

    task: str
    probe: str
    level: Level
    share: float
    figure: str


class _Source(NamedTuple):
    """A measure without its figure."""

    task: str
    probe: str
    level: Level
    share: float


class Runs:
    """The runs by arm, and their figures on common resamples.

    Attributes:
        measures: everything that any run was measured by.
    """

    def __init__(self, experiment: Experiment) -> None:
        seeds, patients = experiment.seeds, experiment.tested
        self._results = {(r.arm, r.seed, r.fold): r for r in experiment.results}
        self._crossing = Crossing.of(seeds, patients)
        self._weights = resampled(len(seeds), len(patients), experiment.resamples)
        self._known: dict[tuple[_Source, str, frozenset[Run]], dict[str, Sample]] = {}
        self._runs: dict[tuple[_Source, str], set[Run]] = {}
        for r in experiment.results:
            for source in _sources(r):
                self._runs.setdefault((source, r.arm), set()).add((r.seed, r.fold))
        self.measures = [
            Measure(*source, figure)
            for source in dict.fromkeys(source for source, _ in self._runs)
            for figure in dict.fromkeys(
                figure
                for arm in experiment.arms
                for figure in self._samples(source, arm.name, self._of(source, arm.name))
            )
        ]

    def of(self, measure: Measure, arm: str) -> frozenset[Run]:
        """Returns the seeds and folds of the runs of an arm that have a measure."""
        return self._of(_Source(*measure[:4]), arm)

    def _of(self, source: _Source, arm: str) -> frozenset[Run]:
        return frozenset(self._runs.get((source, arm), ()))

    def sample(self, measure: Measure, arm: str, runs: frozenset[Run]) -> Sample | None:
        """Returns a figure of some of the runs of an arm; None without a run."""
        return self._samples(_Source(*measure[:4]), arm, runs).get(measure.figure)

    def _samples(self, source: _Source, arm: str, runs: frozenset[Run]) -> dict[str, Sample]:
        if not runs:
            return {}
        if (source, arm, runs) not in self._known:
            results = [self._results[arm, seed, fold] for seed, fold in sorted(runs)]
            self._known[source, arm, runs] = (
                self._retrieval(source.task, results)
                if source.probe == RETRIEVAL
                else self._classification(source, results)
            )
        return self._known[source, arm, runs]

    def _retrieval(self, task: str, results: Sequence[RunResult]) -> dict[str, Sample]:
        values = [(r.seed, r.retrieval[task]) for r in results]
        cells = {(s, name) for s, by in values for name, value in by.items() if np.isfinite(value)}
        if not cells:
            return {}
        return {"auroc": self._drawn(mean(values, self._crossing), cells, None)}

    def _classification(self, source: _Source, results: Sequence[RunResult]) -> dict[str, Sample]:
        parts = [(r.seed, _part(r, source)) for r in results]
        cells = {(seed, name) for seed, p in parts for name in p.patient}
        of_classes = {
            pair for _, p in parts for pair in zip(p.patient, p.truth.tolist(), strict=True)
        }
        rarest = min(Counter(c for _, c in of_classes).values())
        return {
            name: self._drawn(statistic, cells, rarest)
            for name, statistic in classification(parts, self._crossing).items()
        }

    def _drawn(
        self, statistic: Statistic, cells: set[tuple[int, str]], rarest: int | None
    ) -> Sample:
        values = statistic(self._weights)
        by_seed, by_patient = np.split(values[1:], 2)
        seeds, patients = (sorted(set(names)) for names in zip(*cells, strict=True))
        tested = np.array([[(s, name) in cells for name in patients] for s in seeds])
        return Sample(
            value=float(values[0]),
            by_seed=by_seed,
            by_patient=by_patient,
            seeds=len(seeds),
            patients=len(patients),
            shared=shared_variance(tested),
            smallest_class=rarest,
        )


def _sources(result: RunResult) -> list[_Source]:
    found = [_Source(p.task, p.probe, p.level, p.share) for p in result.predictions if p.patient]
    return found + [_Source(task, RETRIEVAL, "frame", 1.0) for task in result.retrieval]


def _part(result: RunResult, source: _Source) -> Predictions:
    return next(
        p for p in result.predictions if (p.task, p.probe, p.level, p.share) == tuple(source)
    )
