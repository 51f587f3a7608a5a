"""Intervals of figures and paired differences over seeds and patients.

A difference varies with the seed of a training and with the patients it is measured on. Both are
resampled, each while the other stays as it is, and the two variances are added. Their sum counts
the interaction of seeds and patients twice, where resampling both at once, the pigeonhole bootstrap
of Owen (Annals of Applied Statistics 1, 2007), counts it three times: intervals err on the wide
side. Where seeds hold out different patients, part of what patients differ by is in the variance of
the seeds already, and only the rest is added; an interval is never narrower than that of the
patients alone.

A bootstrap of n units makes a variance too small by (n - 1) / n, which is undone, and a variance of
few units is itself uncertain: the quantile is that of the t distribution with the degrees of
freedom of Satterthwaite (Biometrics Bulletin 2, 1946), from S - 1 where seeds dominate to G - 1
where patients do.

Intervals are adjusted for the number of differences in a family, as in
:mod:`usucl.evaluation.simultaneous`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from usucl.comparison.analysis.tallies import Weights
from usucl.evaluation.bootstrap import MIN_GROUPS, MIN_SHARE, Estimate, resample_weights
from usucl.evaluation.metrics import FloatArray
from usucl.evaluation.simultaneous import CONSTANT, LEVEL, simultaneous_tail

MIN_SEEDS = 3
"""Fewest seeds with an interval: two of them say too little of how much seeds differ."""


def resampled(seeds: int, patients: int, resamples: int) -> Weights:
    """Returns weights of 1, then R resamples of the seeds alone, then R of the patients alone."""
    if not seeds or not patients:
        return Weights(np.ones((1 + 2 * resamples, seeds)), np.ones((1 + 2 * resamples, patients)))
    return Weights(
        np.vstack(
            [
                np.ones((1, seeds)),
                resample_weights(seeds, resamples, 0),
                np.ones((resamples, seeds)),
            ]
        ),
        np.vstack([np.ones((1 + resamples, patients)), resample_weights(patients, resamples, 1)]),
    )


def shared_variance(tested: NDArray[np.bool_]) -> float:
    """Returns the share of the variance of the patients that the variance of the seeds holds too.

    It is 0 if every seed tests all patients, and 1 if no two seeds have a patient in common.

    Args:
        tested: whether a seed tests a patient, ``[S, G]``.
    """
    weight = tested / tested.sum()
    of_patient = weight.sum(0)
    seeds = len(tested)
    if seeds < 2:
        return 0.0
    apart = weight - weight.sum(1, keepdims=True) * of_patient
    share = (apart**2).sum() * seeds / (seeds - 1) / (of_patient**2).sum()
    return float(min(1.0, share))


@dataclass(frozen=True)
class Sample:
    """A figure or a difference, and what it is on resamples.

    Attributes:
        value: on all seeds and patients.
        by_seed, by_patient: on resamples of the seeds alone and of the patients alone ``[R]``.
        seeds, patients: numbers of them.
        shared: share of the variance of the patients that the variance of the seeds holds too, see
            :func:`shared_variance`.
        smallest_class: number of patients with the rarest class; None if there are no classes.
    """

    value: float
    by_seed: FloatArray
    by_patient: FloatArray
    seeds: int
    patients: int
    shared: float = 0.0
    smallest_class: int | None = None

    def minus(self, other: Sample) -> Sample:
        """Returns the paired difference of two figures of the same runs."""
        return replace(
            self,
            value=self.value - other.value,
            by_seed=self.by_seed - other.by_seed,
            by_patient=self.by_patient - other.by_patient,
        )

    def why_no_interval(self) -> str | None:
        """Returns why there is no interval; None if there is one."""
        if not np.isfinite(self.value):
            return "not defined on these videos"
        if self.seeds < MIN_SEEDS:
            return f"only {self.seeds} seed{'s' * (self.seeds != 1)}: no interval"
        if self.patients < MIN_GROUPS:
            return f"only {self.patients} patient{'s' * (self.patients != 1)}: no interval"
        if self.smallest_class is not None and self.smallest_class < 2:
            return "a class with one patient: no interval"
        finite = min(np.isfinite(draws).mean() for draws in (self.by_seed, self.by_patient))
        return "most resamples lose a class: no interval" if finite < MIN_SHARE else None


def estimates(samples: Sequence[Sample], bounds: tuple[float, float]) -> list[Estimate]:
    """Returns the figures with intervals, alone and adjusted for all of them together.

    Args:
        samples: figures or differences of one family.
        bounds: the least and the greatest value that there can be.
    """
    notes = [sample.why_no_interval() for sample in samples]
    judged = [s for s, note in zip(samples, notes, strict=True) if note is None]
    alone, adjusted = _margins(judged) if judged else (np.empty(0), np.empty(0))
    margins = iter(zip(alone.tolist(), adjusted.tolist(), strict=True))
    found = []
    for sample, note in zip(samples, notes, strict=True):
        value = sample.value if np.isfinite(sample.value) else None
        ends: list[float | None] = [None] * 4
        if note is None:
            of_one, of_all = next(margins)
            spread = np.array([-of_one, of_one, -of_all, of_all])
            ends = np.clip(sample.value + spread, *bounds).tolist()
        low, high, adjusted_low, adjusted_high = ends
        found.append(Estimate(value, low, high, sample.patients, note, adjusted_low, adjusted_high))
    return found


def _margins(samples: Sequence[Sample]) -> tuple[FloatArray, FloatArray]:
    """Returns half the widths of K intervals, each alone and all together: ``[K]`` each."""
    seeds = np.array([s.seeds for s in samples])
    patients = np.array([s.patients for s in samples])
    by_seed = _centred([s.by_seed for s in samples]) * np.sqrt(seeds / (seeds - 1))
    by_patient = _centred([s.by_patient for s in samples]) * np.sqrt(patients / (patients - 1))
    of_seeds, of_patients = (np.nanvar(draws, axis=0) for draws in (by_seed, by_patient))
    rest = of_patients * (1 - np.array([s.shared for s in samples]))
    variance = of_seeds + rest
    varies = variance > CONSTANT**2
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = variance**2 / (of_seeds**2 / (seeds - 1) + rest**2 / (patients - 1))
    freedom = np.where(varies, freedom, 1.0)

    def margins(tail: float) -> FloatArray:
        of_both = stats.t.isf(tail, freedom) * np.sqrt(variance)
        return np.maximum(of_both, stats.t.isf(tail, patients - 1) * np.sqrt(of_patients))

    alone = margins((1 - LEVEL) / 2)
    if not varies.any():
        return alone, alone
    # A resample that loses a class says nothing of this difference, so it adds no correlation.
    draws = np.nan_to_num(np.vstack([by_seed, by_patient])[:, varies])
    correlation = np.atleast_2d(np.corrcoef(draws.T))
    tail = simultaneous_tail(correlation, int(freedom[varies].min()) + 1, LEVEL)
    return alone, np.maximum(alone, margins(tail))  # the tail is simulated, with an error


def _centred(draws: Sequence[FloatArray]) -> FloatArray:
    columns = np.column_stack(draws)
    return columns - np.nanmean(columns, axis=0)
