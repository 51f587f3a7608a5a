"""Percentile intervals by bootstrap over patients.

Frames of a video and videos of a patient are not independent, so patients are drawn. The draws
depend on nothing but their number, the number of groups and the seed: two encoders measured on the
same patients are compared on the same resamples (paired).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usucl.evaluation.metrics import FloatArray, Statistic

MIN_GROUPS = 5
"""Fewest patients with an interval: percentiles over fewer describe nothing."""

MIN_SHARE = 0.5
"""Least share of resamples on which a figure must exist (a resample can lose a rare class)."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval over patients, or the reason why there is none.

    ``value`` is None where the figure is not defined.

    Attributes:
        value: the figure on all patients.
        low, high: the interval.
        groups: number of patients (videos where the patients are unknown) it rests on.
        note: why there is no value or no interval.
        adjusted_low, adjusted_high: for a difference, the interval that holds together with those
            of all other differences of the record; see :mod:`usucl.evaluation.simultaneous`.
    """

    value: float | None
    low: float | None
    high: float | None
    groups: int
    note: str | None = None
    adjusted_low: float | None = None
    adjusted_high: float | None = None


def resample_weights(groups: int, resamples: int = 2000, seed: int = 0) -> FloatArray:
    """Returns how often each of G groups is drawn, with replacement, in R resamples: ``[R, G]``."""
    if groups < 1 or resamples < 1:
        raise ValueError(f"groups and resamples must be at least 1, got {groups} and {resamples}")
    rng = np.random.default_rng(seed)
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(np.float64)


def estimate(
    statistic: Statistic,
    groups: int,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    smallest_class: int | None = None,
    unit: str = "patient",
) -> Estimate:
    """Returns ``statistic`` on all groups, with the percentile interval of its resamples.

    Args:
        statistic: maps weights ``[R, G]`` to values ``[R]``, see :mod:`usucl.evaluation.metrics`.
        groups, level, smallest_class, unit: see :func:`estimate_from`.
        resamples, seed: see :func:`resample_weights`.
    """
    if not groups:
        return estimate_from(float("nan"), np.empty(0), groups)
    value = float(statistic(np.ones((1, groups)))[0])
    draws = statistic(resample_weights(groups, resamples, seed))
    return estimate_from(
        value, draws, groups, level=level, smallest_class=smallest_class, unit=unit
    )


def estimate_from(
    value: float,
    draws: FloatArray,
    groups: int,
    *,
    level: float = 0.95,
    smallest_class: int | None = None,
    unit: str = "patient",
) -> Estimate:
    """Returns a figure with the percentile interval of its values on the resamples.

    Args:
        value: the figure on all groups.
        draws: the figure on R resamples, ``[R]``.
        groups: G, the number of patients.
        level: coverage of the interval.
        smallest_class: number of patients with the rarest class, for a mean over classes. A class
            of one patient has no spread to resample, hence no interval.
        unit: what a group is.
    """
    if not np.isfinite(value):
        return Estimate(None, None, None, groups, "not defined on these videos")
    if groups < MIN_GROUPS:
        counted = f"{groups} {unit}" if groups == 1 else f"{groups} {unit}s"
        return Estimate(value, None, None, groups, f"only {counted}: no interval")
    if smallest_class is not None and smallest_class < 2:
        return Estimate(value, None, None, groups, f"a class with one {unit}: no interval")
    finite = draws[np.isfinite(draws)]
    if len(finite) < MIN_SHARE * len(draws):
        return Estimate(value, None, None, groups, "most resamples lose a class: no interval")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), groups)


def form_of_bound(bound: float, form: str) -> str:
    """Returns ``form``, such as "+.2f", with up to two more digits if the bound rounds to 0.

    So it is seen whether an interval excludes 0.
    """
    sign, digits = form.removesuffix("f").split(".")
    more = (f"{sign}.{int(digits) + extra}f" for extra in range(3))
    return next((longer for longer in more if float(format(bound, longer))), form)


def difference(first: Statistic, second: Statistic) -> Statistic:
    """Returns the paired difference: ``first - second`` on the same weights."""
    return lambda weights: first(weights) - second(weights)
