"""kNN and linear probes of frozen features, never with a patient on both sides.

There are two protocols. ``held_out`` fits on the videos that pretraining saw and tests on the
held-out ones. ``cross_validation`` tests every patient once, by a probe fitted on the other folds:
more patients, but pretraining has seen most of the tested frames (without their labels).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from usucl.embedding import numbered
from usucl.evaluation.metrics import FloatArray, Statistic, balanced_accuracy, macro_auroc

NEIGHBOURS = 20
KNN_TEMPERATURE = 0.07
LINEAR_C = 0.01
"""Inverse strength of the linear probe's L2 penalty. It is fixed because, with few patients,
choosing it on the same data would flatter the encoder with the noisier curve."""

Level = Literal["frame", "video"]
IntArray = NDArray[np.int64]
Features = NDArray[np.floating]
Predictor = Callable[[Features, IntArray, Features, int], FloatArray]
"""Maps fit features ``[m, F]`` and classes ``[m]``, test features and C to probabilities [n, C]."""


@dataclass(frozen=True)
class Probe:
    """A way of telling classes from features.

    Attributes:
        title: name in the report.
        predictor: function that fits and tests.
        settings: its settings, for the record.
    """

    title: str
    predictor: Predictor
    settings: Mapping[str, float]


def knn(features: Features, truth: IntArray, test: Features, classes: int) -> FloatArray:
    """Predicts by a vote of the 20 nearest fit samples, weighted by exp(cosine / 0.07).

    Source: Wu et al., CVPR 2018, section 3.4.
    """
    similarity = _unit(test) @ _unit(features).T  # [n, m]
    k = min(NEIGHBOURS, len(features))
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    top = np.take_along_axis(similarity, nearest, axis=1)
    vote = np.exp((top - top.max(1, keepdims=True)) / KNN_TEMPERATURE)
    probability = np.zeros((len(test), classes))
    np.add.at(probability, (np.arange(len(test))[:, None], truth[nearest]), vote)
    return probability / probability.sum(1, keepdims=True)


def linear(features: Features, truth: IntArray, test: Features, classes: int) -> FloatArray:
    """Predicts by logistic regression on standardised features, with balanced class weights."""
    probability = np.zeros((len(test), classes))
    present = np.unique(truth)
    if len(present) == 1:
        probability[:, present] = 1.0
        return probability
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=LINEAR_C, class_weight="balanced", tol=1e-3, max_iter=300),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # random features may need more steps
        model.fit(features, truth)
    probability[:, present] = model.predict_proba(test)
    return probability


PROBES = {
    "knn": Probe("kNN", knn, {"neighbours": NEIGHBOURS, "temperature": KNN_TEMPERATURE}),
    "linear": Probe("Linear", linear, {"C": LINEAR_C}),
}
FIGURES = {"balanced_accuracy": "balanced accuracy", "macro_auroc": "macro AUROC"}
"""The figures measured for every probe, with their names in the report."""


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
    predictor: Predictor,
    features: Features,
    truth: IntArray,
    group: IntArray,
    splits: Sequence[Split],
    classes: int,
) -> tuple[Predictions, IntArray]:
    """Fits and tests ``predictor`` on each split; also returns the tested samples ``[n]``."""
    check_splits(splits, group)
    used = [s for s in splits if s.fit.size and s.test.size]
    if not used:
        raise ValueError("splits must have samples on both sides, got none")
    probability = [
        predictor(features[s.fit], truth[s.fit], features[s.test], classes) for s in used
    ]
    fitted = [np.isin(np.arange(classes), truth[s.fit]) for s in used]
    order = np.concatenate([s.test for s in used])
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


def source_baseline(source: Sequence[str], classes: int) -> Predictor:
    """Returns a predictor that sees only the source of a sample and gives its class shares.

    Where the class goes with the source (machine, hospital, publisher), a probe can score by
    recognising the source. ``features`` holds the sample's number in ``source``, ``[n, 1]``.
    """
    _, number = numbered(source)

    def predictor(fit: Features, truth: IntArray, test: Features, _: int) -> FloatArray:
        fit_source, test_source = (number[x[:, 0].astype(np.int64)] for x in (fit, test))
        overall = np.bincount(truth, minlength=classes) / len(truth)
        rows = []
        for one in test_source:
            same = truth[fit_source == one]
            rows.append(np.bincount(same, minlength=classes) / len(same) if len(same) else overall)
        return np.array(rows)

    return predictor


def _unit(x: Features) -> Features:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
