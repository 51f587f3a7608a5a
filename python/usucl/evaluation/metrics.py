"""Figures of merit, written so that a bootstrap over patients costs one matrix product.

A resample of patients is a row of weights ``w[g] >= 0``: how often group ``g`` was drawn. Every
figure that gets an interval is therefore a :data:`Statistic`, a function from weights ``[R, G]``
to values ``[R]``; weights of 1 give the plain figure. A mean over classes is NaN for weights that
lose a class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]


def concordance(positive: NDArray[Any], negative: NDArray[Any]) -> FloatArray:
    """Counts the negatives ``[N]`` below each positive, ties as one half: float64 ``[P]``."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    up_to = np.searchsorted(ordered, positive, side="right")
    return (below + up_to) / 2.0


def auroc(positive: NDArray[Any], negative: NDArray[Any]) -> float:
    """Returns P(positive > negative) + P(positive = negative) / 2; NaN if scores are empty."""
    if positive.size == 0 or negative.size == 0:
        return float("nan")
    return float(concordance(positive, negative).mean() / negative.size)


def group_mean(values: Sequence[float] | FloatArray) -> Statistic:
    """Returns the mean of one value per group ``[G]``, in which every patient counts the same."""
    array = np.asarray(values, dtype=np.float64)
    return lambda weights: weights @ array / weights.sum(1)


def balanced_accuracy(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], group: NDArray[np.int64], classes: int
) -> Statistic:
    """Returns the mean over classes of the share of samples predicted right.

    Classes without a sample in ``truth`` ``[n]`` have nothing to recall and are left out.
    """
    present = np.unique(truth)
    count = np.zeros((_groups(group), classes))
    hit = np.zeros_like(count)
    np.add.at(count, (group, truth), 1.0)
    np.add.at(hit, (group, truth), (truth == predicted).astype(np.float64))

    def statistic(weights: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore"):
            recall = (weights @ hit[:, present]) / (weights @ count[:, present])  # [R, C]
        return recall.mean(1)

    return statistic


def macro_auroc(
    truth: NDArray[np.int64],
    score: FloatArray,
    group: NDArray[np.int64],
    classes: Sequence[int],
) -> Statistic:
    """Returns the one-against-rest AUROC of ``score`` ``[n, C]``, averaged over ``classes``.

    The AUROC of weights w is w'U w / ((w'P) (w'N)), where U[g, h] counts the pairs of a positive of
    group g above a negative of group h, and P and N count the samples per group.
    """
    groups = _groups(group)
    terms = [pairs_above(truth == c, score[:, c], group, groups) for c in classes]

    def statistic(weights: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore"):
            each = [
                ((weights[:, own] @ u) * weights).sum(1) / ((weights @ p) * (weights @ n))
                for own, u, p, n in terms
            ]
        return np.mean(each, axis=0) if each else np.full(len(weights), np.nan)

    return statistic


def pairs_above(
    positive: NDArray[np.bool_], score: FloatArray, group: NDArray[np.int64], groups: int
) -> tuple[NDArray[np.int64], FloatArray, NDArray[np.int64], NDArray[np.int64]]:
    """Counts the pairs of a positive above a negative, ties as one half, by their groups.

    Args:
        positive: which of the samples are, ``[n]``.
        score: ``[n]``.
        group: number of the group of each, ``[n]``.
        groups: G, the number of groups.

    Returns:
        The groups that have a positive ``[P]``, the pairs of each with every group ``[P, G]``, and
        the positives and the negatives of every group ``[G]``.
    """
    own, position = np.unique(group[positive], return_inverse=True)
    pairs = np.zeros((len(own), groups))
    for h in np.unique(group[~positive]):
        wins = concordance(score[positive], score[~positive & (group == h)])
        pairs[:, h] = np.bincount(position, weights=wins, minlength=len(own))
    counts = [np.bincount(group[m], minlength=groups) for m in (positive, ~positive)]
    return own, pairs, counts[0], counts[1]


def _groups(group: NDArray[np.int64]) -> int:
    return int(group.max()) + 1 if group.size else 0
