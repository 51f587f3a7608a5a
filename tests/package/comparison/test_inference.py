"""Intervals over seeds and patients cover as often as they say; conclusions follow from them."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
from made_up_comparison import ARMS, experiment, result

from usucl.comparison.analysis.conclusion import conclude
from usucl.comparison.analysis.experiment import Experiment
from usucl.comparison.analysis.inference import Sample, estimates, resampled, shared_variance
from usucl.comparison.analysis.measures import Measure
from usucl.comparison.design.primary import Primary
from usucl.evaluation.metrics import FloatArray
from usucl.evaluation.simultaneous import verdict

ZONE = Measure("zone", "linear", "frame", 1.0, "balanced_accuracy")


@functools.cache
def _weights(seeds: int, patients: int) -> FloatArray:
    return resampled(seeds, patients, 200).cell


def _differences(
    seeds: int,
    patients: int,
    spread: tuple[float, float, float],
    count: int,
    *,
    crossed: bool,
    rng: np.random.Generator,
) -> list[Sample]:
    """Made-up differences of 0 that vary with the seed, the patient and both together."""
    cells = np.ones((seeds, patients), bool)
    if not crossed:  # seed s holds out fold s of five
        cells = (np.arange(seeds)[:, None] - np.arange(patients)) % 5 == 0
    of_seed, of_patient, of_both = spread
    values = of_seed * rng.standard_normal((seeds, 1, count))
    values = values + of_patient * rng.standard_normal((1, patients, count))
    values = values + of_both * rng.standard_normal((seeds, patients, count))
    weights = _weights(seeds, patients)[:, cells.ravel()]
    drawn = (weights @ values[cells]) / weights.sum(1, keepdims=True)
    by_seed, by_patient = np.split(drawn[1:], 2)
    return [
        Sample(
            float(drawn[0, i]),
            by_seed[:, i],
            by_patient[:, i],
            seeds,
            patients,
            shared_variance(cells),
        )
        for i in range(count)
    ]


SPREADS = [(1, 0.2, 0.5), (0.2, 1, 1), (0.5, 1, 0.5)]
"""Mostly of the seed, mostly of the patient, of both."""


@pytest.mark.parametrize(
    ("seeds", "patients", "crossed"),
    [
        (5, 8, True),
        (5, 40, True),
        (10, 8, True),
        (10, 40, True),
        (5, 40, False),
        (10, 8, False),
    ],
)
def test_intervals_cover_a_difference_of_nothing(seeds: int, patients: int, crossed: bool) -> None:
    rng = np.random.default_rng((seeds, patients, crossed))
    repeats = 500
    for spread in SPREADS:
        covered = 0
        for _ in range(repeats // 20):
            samples = _differences(seeds, patients, spread, 20, crossed=crossed, rng=rng)
            # Each by the interval that does not know of the others.
            covered += sum(e.low <= 0 <= e.high for e in estimates(samples, (-9, 9)))  # type: ignore[operator]
        assert covered / repeats >= 0.93 - 2 * math.sqrt(0.93 * 0.07 / repeats), spread


@pytest.mark.parametrize(("seeds", "patients"), [(5, 8), (10, 40)])
def test_twenty_comparisons_seldom_hold_a_false_one(seeds: int, patients: int) -> None:
    rng = np.random.default_rng(seeds)
    wrong, repeats = 0, 100
    for _ in range(repeats):
        samples = _differences(seeds, patients, (0.4, 0.6, 0.5), 20, crossed=True, rng=rng)
        found = map(verdict, estimates(samples, (-9, 9)))
        wrong += any(word in ("better", "worse") for word in found)
    assert wrong / repeats <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / repeats)


def test_variance_is_shared_where_seeds_test_different_patients() -> None:
    assert shared_variance(np.ones((5, 20), bool)) == pytest.approx(0)
    folds = np.arange(20) % 5
    once = np.arange(5)[:, None] == folds
    assert shared_variance(once) == pytest.approx(1)
    twice = np.arange(10)[:, None] % 5 == folds
    assert shared_variance(twice) == pytest.approx(4 / 9)  # (folds - 1) / (seeds - 1)


def test_differences_tell_the_better_arm() -> None:
    found = conclude(experiment(seeds=10))
    assert [(d.measure.task, d.reference) for d in found.primary] == [
        ("zone", "cross-only"),
        ("zone", "simclr"),
        ("lines", "simclr"),
    ]
    for d in found.primary:
        figures = found.figures[d.measure]
        gain = figures["both"].value - figures[d.reference].value  # type: ignore[operator]
        assert d.estimate.value == pytest.approx(gain)
        assert d.verdict == "better"
        assert d.half_width is not None and 0 < d.half_width < gain
    same = [d for d in found.exploratory if d.measure == ZONE]
    assert [d.reference for d in same] == ["random"]  # the others are primary
    assert {d.measure.share for d in found.exploratory} == {1.0, 0.2}
    assert any(d.measure.probe == "retrieval" for d in found.exploratory)


def test_arms_that_are_the_same_are_not_told_apart() -> None:
    runs = tuple(result(name, s, skill=0.6) for name in ("simclr", "both") for s in range(5))
    primary = (Primary("both", "simclr", "zone", "balanced_accuracy"),)
    (one,) = conclude(experiment(results=runs, primary=primary)).primary
    assert one.verdict == "not told apart" and one.estimate.value == 0 == one.half_width


def test_differences_are_of_the_runs_that_both_arms_have() -> None:
    full = experiment()
    lacking = replace(
        full, results=tuple(r for r in full.results if (r.arm, r.seed) != ("simclr", 2))
    )
    paired = replace(full, results=tuple(r for r in full.results if r.seed != 2))
    (one,) = (d for d in conclude(lacking).primary if (d.measure, d.reference) == (ZONE, "simclr"))
    (other,) = (d for d in conclude(paired).primary if (d.measure, d.reference) == (ZONE, "simclr"))
    assert one.runs == other.runs == 4
    assert one.estimate.value == pytest.approx(other.estimate.value)
    assert one.estimate.groups == other.estimate.groups == 16


def test_too_few_seeds_or_patients_have_no_interval() -> None:
    for few, reason in (
        (experiment(seeds=2), "only 2 seeds: no interval"),
        (
            experiment(
                results=tuple(
                    result(a.name, s, folds=1, patients=4) for a in ARMS for s in range(5)
                )
            ),
            "only 4 patients: no interval",
        ),
    ):
        for d in conclude(few).differences:
            assert d.verdict == "no interval" and d.half_width is None
            assert d.estimate.value is not None and d.estimate.note == reason


def test_tasks_say_what_their_labels_can_tell() -> None:
    found = conclude(experiment()).tasks
    assert found["lines"].only_between_patients and not found["zone"].only_between_patients
    assert found["lines"].patients_per_class == {"no": 10, "yes": 10}
    assert found["zone"].patients_per_class == {"a": 18, "b": 19, "c": 19}


def test_an_experiment_that_has_not_begun_concludes_nothing() -> None:
    found = conclude(experiment(results=()))
    assert not found.figures and not found.differences and not found.tasks


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"primary must be of the arms .*, got nobody"):
        experiment(primary=(Primary("both", "nobody", "zone", "balanced_accuracy"),))
    with pytest.raises(ValueError, match="results must hold each run once"):
        experiment(results=(result("both", 0), result("both", 0)))
    with pytest.raises(ValueError, match=r"must name a task, a figure, .* got 'zones'"):
        conclude(experiment(primary=(Primary("both", "simclr", "zones", "balanced_accuracy"),)))
    with pytest.raises(ValueError, match="arms must have different names"):
        Experiment("", (), (ARMS[0], ARMS[0]))
