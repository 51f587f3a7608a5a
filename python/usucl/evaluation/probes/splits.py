"""Splits of samples by patient, and what a probe that was fitted on one side says of the other.

There are two protocols. ``held_out`` fits on the videos that pretraining saw and tests on the
held-out ones. ``cross_validation`` tests every patient once, by a probe fitted on the other folds:
more patients, but pretraining has seen most of the tested frames (without their labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from usucl.evaluation.metrics import FloatArray, Statistic, balanced_accuracy, macro_auroc
from usucl.evaluation.probes.predictors import Features, IntArray, Predictor

Level = Literal["frame", "video"]
FIGURES = {"balanced_accuracy": "balanced accuracy", "macro_auroc": "macro AUROC"}
"""The figures by which encoders are compared, with their names in the report."""


@dataclass(frozen=True)
class Split:
    """Sample numbers to fit on and to test on; no patient is in both."""

    fit: IntArray
    test: IntArray


def held_out_split(held_out: NDArray[np.bool_]) -> list[Split]:
    """Returns one split of samples by whether their patient was held out ``[n]``."""
    return [Split(np.flatnonzero(~held_out), np.flatnonzero(held_out))]


def fold_splits(fold: IntArray) -> list[Split]:
    """Returns one split per number in ``fold`` ``[n]``; each fold is tested once."""
    return [Split(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in np.unique(fold)]


def check_splits(splits: Sequence[Split], group: IntArray) -> None:
    """Raises ValueError if a patient (``group`` ``[n]``) is on both sides of a split."""
    for split in splits:
        shared = np.intersect1d(group[split.fit], group[split.test])
        if shared.size:
            raise ValueError(f"splits must not share a patient, got {shared.size} on both sides")


@dataclass(frozen=True)
class Predictions:
    """Probabilities for every tested sample, over all folds."""

    truth: IntArray  # [n], index of the class
    probability: FloatArray  # [n, C]
    group: IntArray  # [n]
    fitted: NDArray[np.bool_]  # [C], classes that every fit set holds


def predict(
    predictor: Predictor | Sequence[Predictor],
    features: Features,
    truth: IntArray,
    group: IntArray,
    splits: Sequence[Split],
    classes: int,
) -> tuple[Predictions, IntArray]:
    """Fits and tests a predictor on each split; also returns the tested samples ``[n]``.

    Args:
        predictor: one for all splits, or one for each.
        features: of the samples, ``[n, F]``.
        truth, group: class and patient of each, ``[n]``.
        splits: those without a sample on one side are passed over.
        classes: C, the number of classes.

    Raises:
        ValueError: a patient is on both sides of a split, or no split has both sides.
    """
    check_splits(splits, group)
    each = [predictor] * len(splits) if callable(predictor) else predictor
    used = [(p, s) for p, s in zip(each, splits, strict=True) if s.fit.size and s.test.size]
    if not used:
        raise ValueError("splits must have samples on both sides, got none")
    probability = [fit(features[s.fit], truth[s.fit], features[s.test], classes) for fit, s in used]
    fitted = [np.isin(np.arange(classes), truth[s.fit]) for _, s in used]
    order = np.concatenate([s.test for _, s in used])
    result = Predictions(
        truth[order], np.concatenate(probability), group[order], np.all(fitted, axis=0)
    )
    return result, order


def per_video(predictions: Predictions, video: IntArray) -> Predictions:
    """Averages the probabilities of the frames of each video; ``video`` is ``[n]``."""
    videos, first, inverse = np.unique(video, return_index=True, return_inverse=True)
    total = np.zeros((len(videos), predictions.probability.shape[1]))
    np.add.at(total, inverse, predictions.probability)
    return Predictions(
        predictions.truth[first],
        total / np.bincount(inverse)[:, None],
        predictions.group[first],
        predictions.fitted,
    )


def statistics(predictions: Predictions) -> dict[str, Statistic]:
    """Returns the :data:`FIGURES` as functions of the weights of the tested patients.

    A class without a tested sample enters neither. A class absent from a fit set can only be
    predicted wrong: it counts in the balanced accuracy, but has no scores to rank for the AUROC.
    """
    _, group = np.unique(predictions.group, return_inverse=True)
    truth, classes = predictions.truth, predictions.probability.shape[1]
    ranked = [c for c in np.unique(truth).tolist() if predictions.fitted[c]]
    if len(np.unique(truth)) < 2:
        ranked = []  # there is no rest to rank against
    return {
        "balanced_accuracy": balanced_accuracy(
            truth, predictions.probability.argmax(1), group, classes
        ),
        "macro_auroc": macro_auroc(truth, predictions.probability, group, ranked),
    }


def patients_per_class(predictions: Predictions) -> dict[int, int]:
    """Returns the number of tested patients in every class that was tested."""
    return {
        int(c): len(np.unique(predictions.group[predictions.truth == c]))
        for c in np.unique(predictions.truth)
    }
