"""Intervals that hold for all differences at once, and the verdict that rests on them."""

from __future__ import annotations

import numpy as np
import pytest

from usucl.evaluation import verdict
from usucl.evaluation.bootstrap import Estimate, resample_weights
from usucl.evaluation.metrics import group_mean
from usucl.evaluation.simultaneous import Family, family_level, simultaneous_margins

pytestmark = pytest.mark.usefixtures("one_thread")


def family(values: np.ndarray, **options: object) -> Family[int]:
    """One figure per column of values [G, K], and its difference to another encoder's 0.5."""
    groups, figures = values.shape
    statistics = {
        k: {"trained": group_mean(values[:, k]), "random": group_mean(np.full(groups, 0.5))}
        for k in range(figures)
    }
    return Family.compare(statistics, groups, resamples=300, seed=0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("groups", "correlation"), [(6, 0.0), (8, 0.8), (20, 0.5)])
def test_all_true_differences_are_covered_at_once(groups: int, correlation: float) -> None:
    """All of 12 differences that are 0 are covered in about 95 % of 100 trials."""
    rng, figures = np.random.default_rng(groups), 12
    all_covered, all_covered_plainly = [], []
    for seed in range(100):
        common, own = rng.normal(size=(groups, 1)), rng.normal(size=(groups, figures))
        values = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
        draws = resample_weights(groups, 300, seed) @ values / groups
        margin = simultaneous_margins(draws, groups, 0.95)
        all_covered.append((np.abs(values.mean(0)) <= margin).all())
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        all_covered_plainly.append(((low <= 0) & (high >= 0)).all())
    # The share of 100 trials has a standard deviation of 2.2 %.
    assert 0.88 <= np.mean(all_covered) <= 1.0
    assert np.mean(all_covered_plainly) < 0.7


def test_one_difference_has_the_interval_of_the_t_distribution() -> None:
    values = np.random.default_rng(3).normal(size=10)
    draws = resample_weights(10, 20_000) @ values[:, None] / 10
    expected = 2.262 * values.std(ddof=1) / np.sqrt(10)  # 0.975 quantile of t with 9 degrees
    margin = simultaneous_margins(draws, 10, 0.95)
    assert margin == pytest.approx(expected, rel=0.04)  # of 20,000 draws


def test_more_differences_and_families_have_wider_intervals() -> None:
    values = np.random.default_rng(4).normal(size=(15, 6))
    one, six = family(values[:, :1]), family(values)
    levels = [family_level([one] * n) for n in (1, 2, 5)]
    assert levels == pytest.approx([0.95, 0.975, 0.99])
    e = [one.adjusted(levels[0]), six.adjusted(levels[0]), six.adjusted(levels[2])]
    widths = [
        f[0]["trained - random"].adjusted_high - f[0]["trained - random"].adjusted_low for f in e
    ]  # type: ignore[operator]
    assert widths[0] < widths[1] < widths[2]
    plain = six.adjusted(0.95)[0]
    assert plain["trained"].adjusted_low is None and plain["trained"].low is not None


def test_a_constant_difference_is_certain_and_few_patients_have_no_interval() -> None:
    shared = np.random.default_rng(5).uniform(size=(8, 1))
    statistics = {
        0: {"trained": group_mean(shared[:, 0] + 0.1), "random": group_mean(shared[:, 0])}
    }
    found = Family.compare(statistics, 8, resamples=50, seed=0).adjusted(0.95)[0]
    e = found["trained - random"]
    assert e.adjusted_low == pytest.approx(0.1) and e.adjusted_high == pytest.approx(0.1)
    assert verdict(e) == "better"
    few = family(np.ones((4, 2)), unit="video")
    assert few.draws == {} and family_level([few]) == 0.95
    assert few.adjusted(0.95)[0]["trained"].note == "only 4 videos: no interval"
    assert verdict(few.adjusted(0.95)[0]["trained - random"]) == "no interval"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.3, "better"),
        (-0.3, -0.01, "worse"),
        (-0.1, 0.3, "not told apart"),
        (0.0, 0.3, "not told apart"),
        (None, None, "no interval"),
    ],
)
def test_verdicts(low: float | None, high: float | None, said: str) -> None:
    """They rest on the adjusted interval, whatever the plain one says."""
    assert verdict(Estimate(0.1, 0.05, 0.15, 9, None, low, high)) == said
