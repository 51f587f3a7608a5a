"""Probes: what they fit on, how a setting is chosen, and what few patients and no frame tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usucl.evaluation import probes
from usucl.evaluation.metrics import FloatArray
from usucl.evaluation.probes.choice import INNER_FOLDS, choose, inner_splits
from usucl.evaluation.probes.context import context_baseline
from usucl.evaluation.probes.efficiency import averaged, drawn

pytestmark = pytest.mark.usefixtures("one_thread")

GRID = tuple(float(value) for value in range(1, 31))


# Fitting and testing


@given(st.lists(st.integers(0, 9), min_size=6, max_size=40), st.integers(2, 5))
def test_no_patient_is_fitted_and_tested(patients: list[int], folds: int) -> None:
    group = np.array(patients)
    splits = probes.fold_splits(group % folds) + probes.held_out_split(group < 3)
    probes.check_splits(splits, group)
    tested = np.concatenate([s.test for s in probes.fold_splits(group % folds)])
    assert sorted(tested) == list(range(len(group)))


def test_a_shared_patient_is_refused() -> None:
    splits = probes.held_out_split(np.array([True, False, False]))
    with pytest.raises(ValueError, match="must not share a patient, got 1"):
        probes.check_splits(splits, np.array([7, 7, 8]))


@pytest.mark.parametrize("probe", probes.PROBES.values(), ids=probes.PROBES)
def test_probes_separate_what_is_separable(probe: probes.Probe) -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8) * 8
    truth = rng.integers(3, size=90)
    features = centres[truth] + rng.normal(size=(90, 8))
    for value in (probe.fixed, *probe.grid):
        probability = probe.at(value)(features[:60], truth[:60], features[60:], 4)
        assert probability.shape == (30, 4)
        np.testing.assert_allclose(probability.sum(1), 1, atol=1e-6)
        assert (probability[:, 3] == 0).all()  # a class that was never fitted
    assert (probe.predictor(features[:60], truth[:60], features[60:], 4).argmax(1) == truth[60:]
            ).mean() > 0.95  # fmt: skip


@pytest.mark.parametrize("probe", probes.PROBES.values(), ids=probes.PROBES)
def test_one_class_is_told_everywhere(probe: probes.Probe) -> None:
    features = np.random.default_rng(0).normal(size=(8, 4))
    told = probe.path(features, np.full(8, 1), features[:3], 3, probe.grid)
    assert len(told) == len(probe.grid)
    assert all(np.array_equal(one, np.eye(3)[[1, 1, 1]]) for one in told)


def test_classes_missing_from_a_fit_or_a_test() -> None:
    truth = np.array([0, 0, 1, 1, 0, 1, 2])  # class 2 is only tested, class 3 nowhere
    features = np.eye(4, 5)[truth]
    held_out = np.arange(7) >= 4
    knn = probes.PROBES["knn"].predictor
    predictions, _ = probes.predict(
        knn, features, truth, np.arange(7), probes.held_out_split(held_out), 4
    )
    assert predictions.fitted.tolist() == [True, True, False, False]
    figures = probes.statistics(predictions)
    one = np.ones((1, 3))
    assert figures["balanced_accuracy"](one)[0] == pytest.approx(2 / 3)  # class 2 always wrong
    assert figures["macro_auroc"](one)[0] == pytest.approx(1)  # of classes 0 and 1


def test_per_video_is_the_mean_over_frames() -> None:
    frames = probes.Predictions(
        truth=np.array([1, 1, 0]),
        probability=np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]]),
        group=np.array([5, 5, 6]),
        fitted=np.array([True, True]),
    )
    videos = probes.per_video(frames, np.array([3, 3, 1]))
    assert videos.truth.tolist() == [0, 1] and videos.group.tolist() == [6, 5]
    np.testing.assert_allclose(videos.probability, [[0.9, 0.1], [0.4, 0.6]])


# Choosing a setting


def _guesses(
    features: probes.Features,
    truth: probes.IntArray,
    test: probes.Features,
    classes: int,
    settings: Sequence[float],
) -> list[FloatArray]:
    """Answers at random, otherwise with each setting, whatever it is fitted on."""
    told = []
    for value in settings:
        answers = np.random.default_rng(int(value)).integers(classes, size=1000)
        told.append(np.eye(classes)[answers[test[:, 0].astype(int)]])
    return told


GUESSES = replace(probes.PROBES["linear"], path=_guesses, grid=GRID, fixed=1.0)


def test_a_choice_on_fit_patients_does_not_flatter() -> None:
    """Of 30 ways of guessing, the best on all patients looks good, and the chosen one does not."""
    flattered, honest = [], []
    for seed in range(8):
        truth = np.random.default_rng(100 + seed).integers(2, size=60)
        features, group = np.arange(60.0)[:, None] + 13 * seed, np.arange(60)
        splits = probes.fold_splits(group % 5)
        chosen = probes.choose_each(GUESSES, features, truth, group, splits, 2)
        predictors = probes.with_settings(GUESSES, chosen)
        found, order = probes.predict(predictors, features, truth, group, splits, 2)
        honest.append((found.probability.argmax(1) == truth[order]).mean())
        told = _guesses(features, truth, features, 2, GRID)
        flattered.append(max((one.argmax(1) == truth).mean() for one in told))
    assert np.mean(flattered) > 0.6
    # 480 guesses: a standard deviation of 0.023, and three of them.
    assert abs(np.mean(honest) - 0.5) < 0.07


def test_the_tested_patients_take_no_part_in_the_choice() -> None:
    rng = np.random.default_rng(0)
    truth, group = np.arange(40) % 2, np.arange(40)
    features = rng.normal(size=(40, 5)) + truth[:, None]
    splits = probes.fold_splits(group % 4)
    for probe in probes.PROBES.values():
        chosen = probes.choose_each(probe, features, truth, group, splits, 2)
        for split, value in zip(splits, chosen, strict=True):
            hidden = features.copy()
            hidden[split.test] = np.nan
            unknown = truth.copy()
            unknown[split.test] = 1 - truth[split.test]
            one = [split]
            assert probes.choose_each(probe, hidden, unknown, group, one, 2) == [value]
            assert value in probe.grid


def _right_at(*right: float) -> probes.Probe:
    """A probe that tells every class at some settings, and the opposite at others."""

    def path(features, truth, test, classes, settings):  # type: ignore[no-untyped-def]
        true = test[:, 0].astype(int)
        return [np.eye(classes)[true if value in right else 1 - true] for value in settings]

    return replace(probes.PROBES["linear"], path=path, grid=GRID, fixed=8.0)


def test_the_setting_is_chosen_that_tells_unseen_patients_best() -> None:
    truth = np.arange(12) % 2
    features, group = truth[:, None].astype(float), np.arange(12)
    assert choose(_right_at(3), features, truth, group, 2) == 3
    assert choose(_right_at(2, 7, 30), features, truth, group, 2) == 7  # nearest to the fixed one


def test_few_patients_have_the_fixed_setting() -> None:
    """Many frames of few patients are few."""
    truth = np.repeat([0, 1], 50)
    group = np.concatenate([np.arange(50) % 9, 9 + np.arange(50) % (INNER_FOLDS - 1)])
    features = truth[:, None].astype(float)
    assert choose(_right_at(3), features, truth, group, 2) is None
    group[50:] = 9 + np.arange(50) % INNER_FOLDS
    assert choose(_right_at(3), features, truth, group, 2) == 3
    rare = np.append(truth, 2)  # a third class, of one patient, is not judged by
    more = np.append(features, [[2.0]], axis=0)
    probe = replace(probes.PROBES["knn"], fixed=1, grid=(5, 1))
    assert choose(probe, more, rare, np.append(group, 99), 3) in probe.grid
    fixed = probes.with_settings(_right_at(8), [None, 5.0])
    assert [p(features, truth, features, 2).argmax(1)[-1] for p in fixed] == [1, 0]


@given(st.lists(st.integers(0, 8), min_size=6, max_size=40), st.randoms(use_true_random=False))
def test_inner_splits_share_no_patient(patients: list[int], random) -> None:  # type: ignore[no-untyped-def]
    group = np.array(patients)
    truth = np.array([random.randrange(2) for _ in patients])
    if len(set(patients)) < INNER_FOLDS:
        return
    splits = inner_splits(truth, group)
    probes.check_splits(splits, group)
    assert sorted(np.concatenate([s.test for s in splits])) == list(range(len(group)))


# Few patients


def test_smaller_shares_are_within_larger_ones_and_have_every_class() -> None:
    group = np.repeat(np.arange(40), 3)
    truth = (group % 4 == 0).astype(np.int64) + (group == 39)
    splits = probes.fold_splits(group % 2)
    before: list[set[int]] = [set(), set()]
    for share, patients, by_class in ((0.05, 2.0, True), (0.2, 4, False), (1.0, 20, False)):
        found = drawn(splits, truth, group, share, (0, 1))
        assert (found.patients, found.by_class) == (patients, by_class)
        for i, (old, new) in enumerate(zip(splits, found.splits, strict=True)):
            assert np.array_equal(old.test, new.test)
            assert set(truth[new.fit]) == set(truth[old.fit])
            now = set(group[new.fit].tolist())
            assert before[i] <= now <= set(group[old.fit].tolist())
            before[i] = now
    other = drawn(splits, truth, group, 0.2, (0, 2)).splits
    again = drawn(splits, truth, group, 0.2, (0, 1)).splits
    assert any(set(group[a.fit]) != set(group[b.fit]) for a, b in zip(again, other, strict=True))


def test_figures_of_draws_are_averaged() -> None:
    truth, group, fitted = np.array([0, 0, 1, 1]), np.arange(4), np.ones(2, bool)
    right = probes.Predictions(truth, np.eye(2)[truth], group, fitted)
    wrong = probes.Predictions(truth, np.eye(2)[1 - truth], group, fitted)
    figures = averaged([right, right, wrong])
    one = np.ones((1, 4))
    assert figures["balanced_accuracy"](one)[0] == pytest.approx(2 / 3)
    assert figures["macro_auroc"](one)[0] == pytest.approx(2 / 3)


# Context alone


def test_a_context_tells_the_usual_class_where_all_are_as_frequent() -> None:
    baseline = context_baseline(["a", "a", "a", "a", "b", "a", "b", "c"], 2)
    column = np.arange(8.0)[:, None]
    got = baseline(column[:5], np.array([0, 0, 0, 1, 1]), column[5:], 2)
    # "a" has all of class 0 and half of class 1; nobody has seen "c".
    np.testing.assert_allclose(got, [[2 / 3, 1 / 3], [0, 1], [1 / 2, 1 / 2]])
