"""The setting of a probe, chosen on the patients that it is fitted on and on no others.

Each outer split chooses anew, by an inner cross-validation over its fit patients. So nothing is
chosen on what is reported, and the choice cannot flatter an encoder: one whose inner curve is noisy
only chooses badly. With fewer than :data:`INNER_FOLDS` fit patients in all classes but one there is
nothing to judge a setting by, as an inner fold could not hold one patient of a class out and be
fitted on two; then the fixed setting is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from usucl.evaluation.metrics import balanced_accuracy
from usucl.evaluation.probes.predictors import Features, IntArray, Predictor, Probe
from usucl.evaluation.probes.splits import Split, fold_splits

INNER_FOLDS = 3
"""Inner folds, and fewest fit patients of a class by which settings are judged."""


def choose(
    probe: Probe, features: Features, truth: IntArray, group: IntArray, classes: int
) -> float | None:
    """Returns the setting that tells the classes of patients best who were not fitted on.

    It has the greatest balanced accuracy over all inner folds together, on the classes with enough
    patients; of equal settings it is the one nearest to the fixed one.

    Args:
        probe: the probe.
        features: of the m samples to fit on, ``[m, F]``.
        truth, group: class and patient of each, ``[m]``.
        classes: C, the number of classes.

    Returns:
        The value; None where there are too few patients.
    """
    judged = [c for c in np.unique(truth) if len(np.unique(group[truth == c])) >= INNER_FOLDS]
    if len(judged) < 2:
        return None
    kept = np.isin(truth, judged)
    told = np.zeros((len(probe.grid), len(truth)), dtype=np.int64)
    for split in inner_splits(truth, group):
        found = probe.path(
            features[split.fit], truth[split.fit], features[split.test], classes, probe.grid
        )
        told[:, split.test] = [probability.argmax(1) for probability in found]
    one = np.ones((1, 1))
    together = np.zeros(int(kept.sum()), dtype=np.int64)
    score = [
        float(balanced_accuracy(truth[kept], of[kept], together, classes)(one)[0]) for of in told
    ]
    best = [value for value, s in zip(probe.grid, score, strict=True) if s == max(score)]
    return min(best, key=lambda value: abs(np.log(value / probe.fixed)))


def choose_each(
    probe: Probe,
    features: Features,
    truth: IntArray,
    group: IntArray,
    splits: Sequence[Split],
    classes: int,
) -> list[float | None]:
    """Returns what :func:`choose` finds on the fit side of each split."""
    return [
        choose(probe, features[s.fit], truth[s.fit], group[s.fit], classes)
        if s.fit.size and s.test.size
        else None
        for s in splits
    ]


def with_settings(probe: Probe, chosen: Sequence[float | None]) -> list[Predictor]:
    """Returns the predictors with these settings, the fixed one in place of None."""
    return [probe.at(probe.fixed if value is None else value) for value in chosen]


def inner_splits(truth: IntArray, group: IntArray) -> list[Split]:
    """Returns splits of samples ``[m]`` by patient, with the classes spread over the folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold = np.zeros(len(truth), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        folds = StratifiedGroupKFold(INNER_FOLDS).split(truth, truth, group)
        for number, (_, test) in enumerate(folds):
            fold[test] = number
    return fold_splits(fold)
