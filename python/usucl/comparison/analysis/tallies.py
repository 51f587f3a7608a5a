"""Figures of several runs, as ratios of sums over runs and patients.

A resample of seeds and patients is a pair of rows of weights: how often each was drawn. The samples
of one patient in the runs of one seed are a cell, which counts as often as the product of both
says. So a figure of all runs on a resample costs a few matrix products, and weights of 1 give the
plain figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from usucl.comparison.measurement.predictions import Predictions
from usucl.evaluation import probes
from usucl.evaluation.classification import confusion, macro_f1
from usucl.evaluation.metrics import FloatArray, balanced_accuracy, pairs_above

FIGURES = {
    "balanced_accuracy": "balanced accuracy",
    "macro_auroc": "macro AUROC",
    "macro_f1": "macro F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
"""The figures of a classification, with their names; the last two are of tasks of two classes."""


@dataclass(frozen=True)
class Weights:
    """How often each seed ``[R, S]`` and each patient ``[R, G]`` was drawn in R resamples."""

    seed: FloatArray
    patient: FloatArray

    @cached_property
    def cell(self) -> FloatArray:
        """Of each patient in each seed's runs, ``[R, S * G]``."""
        product = self.seed[:, :, None] * self.patient[:, None, :]
        return product.reshape(len(product), -1)


Statistic: TypeAlias = Callable[[Weights], FloatArray]
"""Maps weights to the values of a figure ``[R]``; NaN where a class is lost."""


@dataclass(frozen=True)
class Crossing:
    """The seeds and the patients of all runs, by their numbers in the weights."""

    seeds: Mapping[int, int]
    patients: Mapping[str, int]

    @classmethod
    def of(cls, seeds: Sequence[int], patients: Sequence[str]) -> Crossing:
        """Numbers seeds and patients in their order."""
        return cls({s: i for i, s in enumerate(seeds)}, {p: i for i, p in enumerate(patients)})

    def ones(self) -> Weights:
        """Returns the weights of the plain figure."""
        return Weights(np.ones((1, len(self.seeds))), np.ones((1, len(self.patients))))

    def patients_of(self, names: Sequence[str]) -> probes.IntArray:
        """Returns the number of each patient."""
        return np.array([self.patients[name] for name in names], dtype=np.int64)


def classification(
    runs: Sequence[tuple[int, Predictions]], crossing: Crossing
) -> dict[str, Statistic]:
    """Returns the :data:`FIGURES` of what one probe said in several runs.

    Classes without a tested sample are left out. A class that is missing from the patients a probe
    was fitted on has the same probability everywhere, so its AUROC is one half: it is missing in
    the same run of every arm.

    Args:
        runs: seeds, each with the predictions of one run; runs of one seed test different patients.
        crossing: numbers of the seeds and the patients.
    """
    groups = len(crossing.patients)
    numbered = [(crossing.seeds[s], crossing.patients_of(p.patient), p) for s, p in runs]
    truth = np.concatenate([p.truth for *_, p in numbered])
    score = np.concatenate([p.probability for *_, p in numbered]).astype(np.float64)
    cell = np.concatenate([seed * groups + patient for seed, patient, _ in numbered])
    cells, group = np.unique(cell, return_inverse=True)
    present, classes = np.unique(truth), score.shape[1]
    counts = confusion(probes.Predictions(truth, score, cell, np.ones(classes, bool)))
    of_cells = {
        "balanced_accuracy": balanced_accuracy(truth, score.argmax(1), group, classes),
        "macro_f1": macro_f1(counts, present),
    }
    if classes == 2:
        of_cells["specificity"], of_cells["sensitivity"] = (
            lambda weights, c=c: (weights @ counts[:, c, c]) / (weights @ counts[:, c].sum(1))
            for c in (0, 1)
        )

    def on_cells(name: str) -> Statistic:
        def statistic(weights: Weights) -> FloatArray:
            with np.errstate(invalid="ignore", divide="ignore"):
                return of_cells[name](weights.cell[:, cells])

        return statistic

    found = {name: on_cells(name) for name in of_cells}
    return found | {"macro_auroc": _macro_auroc(numbered, present.tolist(), groups)}


def _macro_auroc(
    runs: Sequence[tuple[int, probes.IntArray, Predictions]], classes: Sequence[int], groups: int
) -> Statistic:
    """Returns the mean over classes of the share of pairs in the right order.

    A pair is of one run: two runs have different classifiers, whose scores have no common order.
    """
    terms = [
        [
            (s, *pairs_above(p.truth == c, p.probability[:, c].astype(np.float64), g, groups))
            for s, g, p in runs
        ]
        for c in classes
    ]

    def statistic(weights: Weights) -> FloatArray:
        v, w = weights.seed, weights.patient
        each = []
        for of_class in terms:
            won, every = np.zeros(len(w)), np.zeros(len(w))
            for seed, own, pairs, positives, negatives in of_class:
                won += v[:, seed] * ((w[:, own] @ pairs) * w).sum(1)
                every += v[:, seed] * (w @ positives) * (w @ negatives)
            with np.errstate(invalid="ignore"):
                each.append(won / every)
        return np.mean(each, axis=0) if len(each) > 1 else np.full(len(w), np.nan)

    return statistic


def mean(runs: Sequence[tuple[int, Mapping[str, float]]], crossing: Crossing) -> Statistic:
    """Returns the mean of one value per seed and patient; those that are not finite are left out.

    Args:
        runs: seeds, each with the values of one run by patient.
        crossing: numbers of the seeds and the patients.
    """
    groups = len(crossing.patients)
    values = {
        crossing.seeds[seed] * groups + crossing.patients[name]: value
        for seed, of_run in runs
        for name, value in of_run.items()
        if np.isfinite(value)
    }
    cells, array = list(values), np.array(list(values.values()))

    def statistic(weights: Weights) -> FloatArray:
        drawn = weights.cell[:, cells]
        with np.errstate(invalid="ignore"):
            return (drawn @ array) / drawn.sum(1)

    return statistic
