"""Classifiers of frozen features: nearest neighbours and logistic regression."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from usucl.evaluation.metrics import FloatArray

KNN_TEMPERATURE = 0.07

IntArray = NDArray[np.int64]
Features = NDArray[np.floating]
Predictor: TypeAlias = Callable[[Features, IntArray, Features, int], FloatArray]
"""Maps fit features ``[m, F]`` and classes ``[m]``, test features and C to probabilities [n, C]."""
Path: TypeAlias = Callable[[Features, IntArray, Features, int, Sequence[float]], list[FloatArray]]
"""Does what a :data:`Predictor` does, with each of several settings in turn."""


@dataclass(frozen=True)
class Probe:
    """A way of telling classes from features.

    Attributes:
        title: name in the report.
        path: function that fits and tests with each of several settings.
        setting: name of the setting.
        fixed: its value where it is not chosen, for want of patients or of time.
        grid: the values to choose from, from the smoothest to the most flexible.
        constants: further settings, for the record.
    """

    title: str
    path: Path
    setting: str
    fixed: float
    grid: tuple[float, ...]
    constants: Mapping[str, float]

    def at(self, value: float) -> Predictor:
        """Returns the predictor with this value of the setting."""
        return lambda features, truth, test, classes: self.path(
            features, truth, test, classes, (value,)
        )[0]

    @property
    def predictor(self) -> Predictor:
        """The predictor with the fixed setting."""
        return self.at(self.fixed)

    @property
    def settings(self) -> Mapping[str, float]:
        """The settings of :attr:`predictor`, for the record."""
        return {self.setting: self.fixed, **self.constants}


def knn(
    features: Features,
    truth: IntArray,
    test: Features,
    classes: int,
    neighbours: Sequence[float],
) -> list[FloatArray]:
    """Predicts by a vote of the nearest fit samples, weighted by exp(cosine / 0.07).

    Source: Wu et al., CVPR 2018, section 3.4.
    """
    similarity = _unit(test) @ _unit(features).T  # [n, m]
    found = []
    for number in neighbours:
        k = min(int(number), len(features))
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        top = np.take_along_axis(similarity, nearest, axis=1)
        vote = np.exp((top - top.max(1, keepdims=True)) / KNN_TEMPERATURE)
        probability = np.zeros((len(test), classes))
        np.add.at(probability, (np.arange(len(test))[:, None], truth[nearest]), vote)
        found.append(probability / probability.sum(1, keepdims=True))
    return found


def linear(
    features: Features,
    truth: IntArray,
    test: Features,
    classes: int,
    penalties: Sequence[float],
) -> list[FloatArray]:
    """Predicts by logistic regression on standardised features, with balanced class weights.

    Args:
        features, truth, test, classes: see :data:`Predictor`.
        penalties: C, the inverse strengths of the L2 penalty. Each fit begins where the one before
            ended, which is quickest from small to large.
    """
    present = np.unique(truth)
    if len(present) == 1:
        certain = np.tile((np.arange(classes) == present).astype(np.float64), (len(test), 1))
        return [certain] * len(penalties)
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    features, test = scaler.transform(features), scaler.transform(test)
    model = LogisticRegression(class_weight="balanced", tol=1e-3, max_iter=300, warm_start=True)
    found = []
    for penalty in penalties:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # random features may need more
            model.set_params(C=penalty).fit(features, truth)
        probability = np.zeros((len(test), classes))
        probability[:, present] = model.predict_proba(test)
        found.append(probability)
    return found


PROBES = {
    "knn": Probe(
        title="kNN",
        path=knn,
        setting="neighbours",
        fixed=20,
        grid=(200, 100, 50, 20, 5),
        constants={"temperature": KNN_TEMPERATURE},
    ),
    "linear": Probe(
        title="Linear",
        path=linear,
        setting="C",
        fixed=0.01,
        grid=(1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        constants={},
    ),
}


def _unit(x: Features) -> Features:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
