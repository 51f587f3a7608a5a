"""How well a linear probe does that was fitted on few of the labelled patients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from usucl.evaluation.metrics import Statistic
from usucl.evaluation.probes.predictors import IntArray
from usucl.evaluation.probes.splits import Predictions, Split, statistics

SHARES = (0.01, 0.05, 0.2)
"""Shares of the fit patients, besides all of them."""
DRAWS = 5
"""Random draws of the patients of a share, over which the figures are averaged."""


class Drawn(NamedTuple):
    """A share of the fit patients of every split, drawn at random.

    Attributes:
        splits: the splits with fewer samples to fit on.
        patients: number of patients to fit on, the mean over the splits.
        by_class: whether the share was too small for a patient of every class, so that there are
            just as many as that takes.
    """

    splits: list[Split]
    patients: float
    by_class: bool


def drawn(
    splits: Sequence[Split], truth: IntArray, group: IntArray, share: float, seed: tuple[int, ...]
) -> Drawn:
    """Draws patients to fit on, at least one of every class of the fit side of each split.

    The patients of a smaller share are among those of a larger one with the same seed.

    Args:
        splits: the splits, whose test sides stay as they are.
        truth, group: class and patient of each sample, ``[n]``.
        share: share of the patients of each fit side.
        seed: of the draw.
    """
    made, numbers, by_class = [], [], False
    for i, split in enumerate(splits):
        patients = np.unique(group[split.fit])
        order = np.random.default_rng((*seed, i)).permutation(patients)
        needed = list(_one_of_each(order, truth[split.fit], group[split.fit]))
        number = round(share * len(patients))
        by_class |= number < len(needed)
        others = [p for p in order if p not in needed]
        taken = needed + others[: max(0, number - len(needed))]
        made.append(Split(split.fit[np.isin(group[split.fit], taken)], split.test))
        numbers.append(len(taken))
    return Drawn(made, float(np.mean(numbers)), by_class)


def same_fits(draws: Sequence[Drawn], others: Sequence[Drawn]) -> bool:
    """Returns whether two lists of draws fit on the same samples, draw by draw."""
    return len(draws) == len(others) and all(
        np.array_equal(a.fit, b.fit)
        for draw, other in zip(draws, others, strict=True)
        for a, b in zip(draw.splits, other.splits, strict=True)
    )


def _one_of_each(order: IntArray, truth: IntArray, group: IntArray) -> Iterator[int]:
    """Yields patients, in an order, until every class is there, the rarest class first."""
    having = {c: set(group[truth == c].tolist()) for c in np.unique(truth).tolist()}
    there: set[int] = set()
    for c in sorted(having, key=lambda c: (len(having[c]), c)):
        if not there & having[c]:
            first = next(p for p in order.tolist() if p in having[c])
            there.add(first)
            yield first


def averaged(predictions: Sequence[Predictions]) -> dict[str, Statistic]:
    """Returns the means over draws of the figures by which encoders are compared."""
    each = [statistics(p) for p in predictions]
    return {name: _mean([of[name] for of in each]) for name in each[0]}


def _mean(each: Sequence[Statistic]) -> Statistic:
    return lambda weights: np.mean([statistic(weights) for statistic in each], axis=0)
