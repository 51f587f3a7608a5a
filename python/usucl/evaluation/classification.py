"""Figures of a classification, with intervals over patients.

Each is a :data:`usucl.evaluation.metrics.Statistic`, a function from weights of the patients
``[R, G]`` to values ``[R]``, so that the bootstrap costs a few matrix products.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from usucl.evaluation.bootstrap import Estimate, estimate_from, resample_weights
from usucl.evaluation.metrics import (
    FloatArray,
    Statistic,
    balanced_accuracy,
    macro_auroc,
)
from usucl.evaluation.probes import IntArray, Predictions, patients_per_class

SPECIFICITIES = (0.9, 0.95)
BINS = 10
"""Bins of equal width for the calibration error."""

OVERALL = {
    "balanced_accuracy": "Balanced accuracy",
    "macro_auroc": "Macro AUROC",
    "macro_f1": "Macro F1",
    "accuracy": "Accuracy",
    "calibration_error": "Calibration error (ECE)",
    "brier": "Brier score",
}
"""Figures of all classes together, with their names in a report."""
PER_CLASS = {
    "auroc": "AUROC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    **{f"sensitivity_at_{s:g}": f"Sensitivity at {100 * s:g} % specificity" for s in SPECIFICITIES},
}
"""Figures of one class against the rest, with their names in a report."""
_CHUNK = 4_000_000  # numbers in memory at a time
_ROUNDING = 1e-9


@dataclass(frozen=True)
class MeanOfFolds:
    """Mean and standard deviation (n - 1) of a figure over the folds in which it is defined."""

    mean: float
    deviation: float | None
    folds: int


@dataclass(frozen=True)
class Figures:
    """The figures of one level.

    Attributes:
        samples, patients: numbers that the figures rest on.
        overall: figures by the names of :data:`OVERALL`.
        per_class: figures of each class against the rest, by the names of :data:`PER_CLASS`.
        patients_per_class: number of tested patients of each class.
        confusion: ``[C][C]`` counts, true classes in rows, predicted in columns.
        over_folds: the figures of :data:`OVERALL` over the folds; empty without folds.
    """

    samples: int
    patients: int
    overall: Mapping[str, Estimate]
    per_class: Mapping[str, Mapping[str, Estimate]]
    patients_per_class: Mapping[str, int]
    confusion: tuple[tuple[int, ...], ...]
    over_folds: Mapping[str, MeanOfFolds]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Figures:
        """Reads the figures as JSON has them."""
        read = {
            "overall": {name: Estimate(**e) for name, e in content["overall"].items()},
            "per_class": {
                name: {figure: Estimate(**e) for figure, e in of.items()}
                for name, of in content["per_class"].items()
            },
            "confusion": tuple(map(tuple, content["confusion"])),
            "over_folds": {name: MeanOfFolds(**m) for name, m in content["over_folds"].items()},
        }
        return cls(**{**content, **read})


def measure(
    predictions: Predictions,
    fold: IntArray | None,
    classes: tuple[str, ...],
    *,
    resamples: int,
    seed: int,
    unit: str,
    per_class: Collection[str] = tuple(PER_CLASS),
) -> Figures:
    """Returns all figures of predictions of n samples.

    Args:
        predictions: of all folds together.
        fold: fold of each sample, ``[n]``; None to leave out the figures over the folds.
        classes: names of the C classes.
        resamples, seed: of the bootstrap.
        unit: what is resampled, see :data:`usucl.data.catalog.patients.UNIT`.
        per_class: which figures of each class.
    """
    _, group = np.unique(predictions.group, return_inverse=True)
    groups = int(group.max()) + 1
    weights = np.vstack([np.ones((1, groups)), resample_weights(groups, resamples, seed)])
    tested = patients_per_class(predictions)
    patients = {name: tested.get(c, 0) for c, name in enumerate(classes)}

    def estimated(statistic: Statistic, smallest: int | None) -> Estimate:
        with np.errstate(invalid="ignore", divide="ignore"):
            values = statistic(weights)
        return estimate_from(
            float(values[0]), values[1:], groups, smallest_class=smallest, unit=unit
        )

    rarest = min(tested.values())
    plain = {"accuracy", "calibration_error", "brier"}  # no means over classes
    overall = {
        name: estimated(statistic, None if name in plain else rarest)
        for name, statistic in overall_statistics(predictions).items()
    }
    of_classes = {
        name: {
            figure: estimated(statistic, patients[name])
            for figure, statistic in class_statistics(predictions, c).items()
            if figure in per_class
        }
        for c, name in enumerate(classes)
    }
    return Figures(
        samples=len(predictions.truth),
        patients=groups,
        overall=overall,
        per_class=of_classes,
        patients_per_class=patients,
        confusion=tuple(map(tuple, confusion(predictions).sum(0).astype(int).tolist())),
        over_folds={} if fold is None else _over_folds(predictions, fold),
    )


def overall_statistics(predictions: Predictions) -> dict[str, Statistic]:
    """Returns the figures of :data:`OVERALL` as functions of the weights of the patients."""
    _, group = np.unique(predictions.group, return_inverse=True)
    truth, score = predictions.truth, predictions.probability
    classes = score.shape[1]
    present = np.unique(truth)
    ranked = [c for c in present.tolist() if predictions.fitted[c]] if len(present) > 1 else []
    return {
        "balanced_accuracy": balanced_accuracy(truth, score.argmax(1), group, classes),
        "macro_auroc": macro_auroc(truth, score, group, ranked),
        "macro_f1": macro_f1(confusion(predictions), present),
        "accuracy": _accuracy(confusion(predictions)),
        "calibration_error": _calibration_error(predictions, group),
        "brier": _brier(predictions, group),
    }


def class_statistics(predictions: Predictions, c: int) -> dict[str, Statistic]:
    """Returns the figures of :data:`PER_CLASS` of class number ``c`` against the rest."""
    _, group = np.unique(predictions.group, return_inverse=True)
    truth, score = predictions.truth, predictions.probability
    counts = confusion(predictions)
    ranked = [c] if predictions.fitted[c] and 0 < (truth == c).sum() < len(truth) else []

    def sensitivity(weights: FloatArray) -> FloatArray:
        return (weights @ counts[:, c, c]) / (weights @ counts[:, c].sum(1))

    def specificity(weights: FloatArray) -> FloatArray:
        others = np.delete(counts, c, axis=1)
        return 1 - (weights @ others[:, :, c].sum(1)) / (weights @ others.sum((1, 2)))

    return {
        "auroc": macro_auroc(truth, score, group, ranked),
        "sensitivity": sensitivity,
        "specificity": specificity,
        **{
            f"sensitivity_at_{s:g}": sensitivity_at(s, truth == c, score[:, c], group)
            for s in SPECIFICITIES
        },
    }


def confusion(predictions: Predictions) -> FloatArray:
    """Returns counts per patient, true class and predicted class, ``[G, C, C]``."""
    names, group = np.unique(predictions.group, return_inverse=True)
    classes = predictions.probability.shape[1]
    counts = np.zeros((len(names), classes, classes))
    np.add.at(counts, (group, predictions.truth, predictions.probability.argmax(1)), 1.0)
    return counts


def _accuracy(counts: FloatArray) -> Statistic:
    right = np.trace(counts, axis1=1, axis2=2)
    return lambda weights: (weights @ right) / (weights @ counts.sum((1, 2)))


def macro_f1(counts: FloatArray, present: IntArray) -> Statistic:
    """Returns the mean over the classes that are tested of 2 TP / (2 TP + FP + FN)."""
    hit = counts[:, present, present]
    either = counts.sum(2)[:, present] + counts.sum(1)[:, present]
    there = counts.sum(2)[:, present]

    def statistic(weights: FloatArray) -> FloatArray:
        each = np.where(weights @ there > 0, 2 * (weights @ hit) / (weights @ either), np.nan)
        return each.mean(1)  # NaN for a resample that loses a class

    return statistic


def _calibration_error(predictions: Predictions, group: IntArray) -> Statistic:
    """Returns the sum over bins of the greatest probability of |right - probability| x share."""
    right, confidence, bins = calibration(predictions)
    surplus = np.zeros((int(group.max()) + 1, BINS))
    number = np.zeros(len(surplus))
    np.add.at(surplus, (group, bins), right - confidence)
    np.add.at(number, group, 1.0)
    return lambda weights: np.abs(weights @ surplus).sum(1) / (weights @ number)


def _brier(predictions: Predictions, group: IntArray) -> Statistic:
    """Returns the mean over samples of sum_c (p_c - [c is true])^2: 0 at best, 2 at worst."""
    wanted = np.eye(predictions.probability.shape[1])[predictions.truth]
    error = np.bincount(group, ((predictions.probability - wanted) ** 2).sum(1))
    number = np.bincount(group)
    return lambda weights: (weights @ error) / (weights @ number)


def calibration(predictions: Predictions) -> tuple[FloatArray, FloatArray, IntArray]:
    """Returns for each sample whether it is right, its greatest probability, and the bin of it."""
    confidence = predictions.probability.max(1)
    right = (predictions.probability.argmax(1) == predictions.truth).astype(np.float64)
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return right, confidence, bins


def sensitivity_at(
    specificity: float, positive: np.ndarray, score: FloatArray, group: IntArray
) -> Statistic:
    """Returns the greatest sensitivity of a threshold that keeps at least this specificity.

    The threshold is chosen on the same samples, anew in each resample.

    Args:
        specificity: share of the negatives below the threshold.
        positive: which samples are positive, ``[n]``.
        score: how positive each seems, ``[n]``; samples of the same score are taken together.
        group: patient of each sample, ``[n]``.
    """
    order = np.argsort(-score, kind="stable")
    positive, group, ordered = positive[order], group[order], score[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # of equal scores

    def statistic(weights: FloatArray) -> FloatArray:
        found = []
        rows = max(1, _CHUNK // max(1, len(order)))
        for start in range(0, len(weights), rows):
            of_sample = weights[start : start + rows, group]
            taken = np.cumsum(of_sample * positive, axis=1)[:, ends]
            wrong = np.cumsum(of_sample * ~positive, axis=1)[:, ends]
            allowed = wrong <= (1 - specificity) * wrong[:, -1:] + _ROUNDING
            most = np.where(allowed, taken, 0.0).max(1)
            value = np.where(wrong[:, -1] > 0, most / taken[:, -1], np.nan)
            found.append(value)
        return np.concatenate(found)

    return statistic


def _over_folds(predictions: Predictions, fold: IntArray) -> dict[str, MeanOfFolds]:
    values: dict[str, list[float]] = {name: [] for name in OVERALL}
    for number in np.unique(fold):
        mine = fold == number
        of_fold = Predictions(
            predictions.truth[mine],
            predictions.probability[mine],
            predictions.group[mine],
            predictions.fitted,
        )
        _, group = np.unique(of_fold.group, return_inverse=True)
        one = np.ones((1, int(group.max()) + 1))
        for name, statistic in overall_statistics(of_fold).items():
            with np.errstate(invalid="ignore", divide="ignore"):
                value = float(statistic(one)[0])
            if np.isfinite(value):
                values[name].append(value)
    return {
        name: MeanOfFolds(
            float(np.mean(found)),
            float(np.std(found, ddof=1)) if len(found) > 1 else None,
            len(found),
        )
        for name, found in values.items()
        if found
    }
