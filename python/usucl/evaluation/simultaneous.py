"""Differences between encoders, with intervals that hold for all of them at once.

A record holds dozens of differences, so some of their 95 % intervals exclude 0 by chance alone. The
adjusted intervals cover all true differences at once in about 95 % of such records.

Figures of the same patients are a family: they share the resamples, and so their correlations are
known. With s_k the standard deviation of difference d_k over the resamples, the family's intervals
are d_k +- c s_k, where c is the quantile of max_k |z_k| for normal z of those correlations: the
single-step max-t of Hothorn, Bretz and Westfall, Biometrical Journal 50, 2008. Few patients show a
correlation that is not there, so correlations are shrunk towards 0 by the share that minimises
their expected error (Schaefer and Strimmer, Statistical Applications in Genetics and Molecular
Biology 4, 2005, with (1 - r^2)^2 / (n - 1) as the variance of r). Between families, whose
correlation is not known, the level is shared out by Bonferroni's rule.

A bootstrap of n patients makes intervals too narrow, because s_k is too small by a factor of
sqrt((n - 1) / n) and the tails are those of the normal and not of the t distribution. The quantile
is widened for both, as Hesterberg, The American Statistician 69, 2015, does for percentiles.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np
from scipy import stats

from usucl.evaluation.bootstrap import Estimate, estimate_from, resample_weights
from usucl.evaluation.metrics import FloatArray, Statistic

Comparison: TypeAlias = Mapping[str, Estimate]
"""One figure per encoder, by its name, and the paired differences "trained - <name>"."""

Verdict: TypeAlias = Literal["better", "worse", "not told apart", "no interval"]

Key = TypeVar("Key", bound=Hashable)

LEVEL = 0.95
NORMAL_DRAWS = 10_000
CONSTANT = 1e-12  # standard deviation of a difference that only rounding makes vary


def verdict(difference: Estimate) -> Verdict:
    """Returns what a difference "trained - <name>" says of the trained encoder.

    It is "better" or "worse" only if the adjusted interval excludes 0. Evaluations of earlier
    versions have no adjusted intervals.
    """
    if difference.adjusted_low is None or difference.adjusted_high is None:
        return "no interval"
    if difference.adjusted_low > 0:
        return "better"
    return "worse" if difference.adjusted_high < 0 else "not told apart"


@dataclass(frozen=True)
class Family(Generic[Key]):
    """Figures of the same patients, by any key, before their intervals are adjusted.

    Attributes:
        comparisons: the figures with their plain intervals.
        draws: the differences that have an interval, by key and name, on R resamples: ``[R]``.
        groups: number of patients.
    """

    comparisons: Mapping[Key, Comparison]
    draws: Mapping[tuple[Key, str], FloatArray]
    groups: int

    @classmethod
    def compare(
        cls,
        statistics: Mapping[Key, Mapping[str, Statistic]],
        groups: int,
        *,
        resamples: int,
        seed: int,
        smallest_class: int | None = None,
        unit: str = "patient",
    ) -> Family[Key]:
        """Estimates each figure of each encoder, and the differences of "trained" to the others.

        Args:
            statistics: the figures, by key and encoder.
            groups, smallest_class, unit: see :func:`usucl.evaluation.bootstrap.estimate_from`.
            resamples, seed: of the bootstrap.
        """
        comparisons: dict[Key, Comparison] = {}
        draws: dict[tuple[Key, str], FloatArray] = {}
        weights = np.ones((1, groups))
        if groups:
            weights = np.vstack([weights, resample_weights(groups, resamples, seed)])
        for key, by_encoder in statistics.items():
            with np.errstate(invalid="ignore"):  # without a patient there is no figure
                values = {name: statistic(weights) for name, statistic in by_encoder.items()}
            others = [name for name in values if name != "trained"]
            values |= {f"trained - {name}": values["trained"] - values[name] for name in others}
            comparisons[key] = {
                name: estimate_from(
                    float(v[0]), v[1:], groups, smallest_class=smallest_class, unit=unit
                )
                for name, v in values.items()
            }
            for name in (f"trained - {other}" for other in others):
                if comparisons[key][name].low is not None:
                    draws[key, name] = values[name][1:]
        return cls(comparisons, draws, groups)

    def adjusted(self, level: float) -> Mapping[Key, Comparison]:
        """Returns the figures, with intervals of the differences that cover all of them at once.

        Args:
            level: probability that they do, see :func:`family_level`.
        """
        if not self.draws:
            return dict(self.comparisons)
        found = {key: dict(comparison) for key, comparison in self.comparisons.items()}
        draws = np.column_stack(list(self.draws.values()))
        draws = draws[np.isfinite(draws).all(1)]
        values = np.array([self.comparisons[key][name].value for key, name in self.draws])
        margins = simultaneous_margins(draws, self.groups, level)
        for (key, name), value, margin in zip(self.draws, values, margins, strict=True):
            low, high = np.clip([value - margin, value + margin], -1, 1).tolist()
            found[key][name] = replace(found[key][name], adjusted_low=low, adjusted_high=high)
        return found


def family_level(families: Iterable[Family[Any]]) -> float:
    """Returns the level of each family at which the intervals of all hold together."""
    return 1 - (1 - LEVEL) / max(1, sum(bool(family.draws) for family in families))


def simultaneous_margins(draws: FloatArray, groups: int, level: float) -> FloatArray:
    """Returns half the width of each of K simultaneous intervals: ``[K]``.

    Args:
        draws: the K differences on R resamples, ``[R, K]``.
        groups: number of patients that were resampled, at least 2.
        level: probability that all intervals cover.
    """
    spread = draws.std(0)
    varies = spread > CONSTANT
    if not varies.any():
        return np.zeros(len(spread))
    tail = simultaneous_tail(np.atleast_2d(np.corrcoef(draws[:, varies].T)), groups, level)
    quantile = stats.t.isf(tail, groups - 1) * np.sqrt(groups / (groups - 1))
    return np.where(varies, quantile * spread, 0.0)


def simultaneous_tail(correlation: FloatArray, groups: int, level: float) -> float:
    """Returns the probability beyond the end of each of K intervals that hold together.

    Args:
        correlation: of the K differences ``[K, K]``, shrunk here for the few groups it rests on.
        groups: number of groups, at least 2.
        level: probability that all intervals cover.
    """
    variance, axes = np.linalg.eigh(_shrunk(correlation, groups))
    normal = np.random.default_rng(0).standard_normal((NORMAL_DRAWS, len(variance)))
    greatest = np.abs(normal @ (axes * np.sqrt(variance.clip(0))).T).max(1)
    return float(stats.norm.sf(np.quantile(greatest, level)))


def _shrunk(correlation: FloatArray, groups: int) -> FloatArray:
    """Returns correlations ``[K, K]`` shrunk towards 0, more so the fewer patients there are."""
    others = ~np.eye(len(correlation), dtype=bool)
    r = correlation[others]
    error, signal = ((1 - r**2) ** 2).sum() / (groups - 1), (r**2).sum()
    share = error / signal if signal > error else 1.0
    return np.where(others, (1 - share) * correlation, 1.0)
