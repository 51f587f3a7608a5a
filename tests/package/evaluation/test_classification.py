"""Figures of a classification against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from usucl.evaluation.classification import (
    class_statistics,
    measure,
    overall_statistics,
    sensitivity_at,
)
from usucl.evaluation.probes import Predictions


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 120)
    score = rng.random((120, 3)) + 0.4 * np.eye(3)[truth]
    score = np.round(score, 1)  # ties
    score /= score.sum(1, keepdims=True)
    return Predictions(truth, score, rng.integers(0, 12, 120), np.ones(3, bool))


def _one(statistic, groups: int = 12) -> float:
    return float(statistic(np.ones((1, groups)))[0])


def test_overall_figures_are_those_of_scikit_learn(predictions: Predictions) -> None:
    truth, score = predictions.truth, predictions.probability
    told = score.argmax(1)
    found = {name: _one(s) for name, s in overall_statistics(predictions).items()}
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, told))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, told))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, told, average="macro"))
    assert found["macro_auroc"] == pytest.approx(roc_auc_score(truth, score, multi_class="ovr"))
    sure, bins = score.max(1), np.minimum((score.max(1) * 10).astype(int), 9)
    error = sum(
        (bins == b).mean() * abs((truth == told)[bins == b].mean() - sure[bins == b].mean())
        for b in np.unique(bins)
    )
    assert found["calibration_error"] == pytest.approx(error)
    parts = [brier_score_loss(truth == c, score[:, c]) for c in range(3)]
    assert found["brier"] == pytest.approx(sum(parts))


@pytest.mark.parametrize("c", [0, 1, 2])
def test_class_figures_are_those_of_scikit_learn(predictions: Predictions, c: int) -> None:
    truth, score = predictions.truth == c, predictions.probability[:, c]
    told = predictions.probability.argmax(1) == c
    found = {name: _one(s) for name, s in class_statistics(predictions, c).items()}
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, score))
    assert found["sensitivity"] == pytest.approx(recall_score(truth, told))
    assert found["specificity"] == pytest.approx(recall_score(~truth, ~told))
    for specificity in (0.9, 0.95):
        false, true, _ = roc_curve(truth, score, drop_intermediate=False)
        best = true[false <= 1 - specificity + 1e-9].max()
        assert found[f"sensitivity_at_{specificity:g}"] == pytest.approx(best)


def test_a_weight_of_two_is_a_patient_twice(predictions: Predictions) -> None:
    weights = np.ones((1, 12))
    weights[0, [3, 5]] = 2, 0
    times = weights[0].astype(int)[predictions.group]
    twice = Predictions(
        np.repeat(predictions.truth, times),
        np.repeat(predictions.probability, times, axis=0),
        np.repeat(predictions.group, times),
        predictions.fitted,
    )
    for names in (overall_statistics, lambda p: class_statistics(p, 1)):
        for name, statistic in names(predictions).items():
            plain = names(twice)[name](np.ones((1, 11)))
            assert statistic(weights) == pytest.approx(plain), name


def test_perfect_and_constant_scores() -> None:
    positive, group = np.array([True, True, False, False]), np.arange(4)
    perfect = sensitivity_at(0.95, positive, np.array([0.9, 0.8, 0.2, 0.1]), group)
    constant = sensitivity_at(0.95, positive, np.full(4, 0.5), group)
    assert _one(perfect, 4) == 1 and _one(constant, 4) == 0
    assert np.isnan(perfect(np.array([[1.0, 1, 0, 0]]))[0])  # no negative is left


def test_few_patients_have_no_interval(predictions: Predictions) -> None:
    few = predictions.group < 4
    some = Predictions(
        predictions.truth[few],
        predictions.probability[few],
        predictions.group[few],
        predictions.fitted,
    )
    fold = some.group % 2
    found = measure(some, fold, ("a", "b", "c"), resamples=20, seed=0, unit="patient")
    assert found.patients == 4
    assert all(
        e.low is None and "only 4 patients" in (e.note or "") for e in found.overall.values()
    )
    assert sum(map(sum, found.confusion)) == found.samples == few.sum()
    assert found.over_folds["accuracy"].folds == 2


def test_a_class_that_was_not_learned_has_no_auroc(predictions: Predictions) -> None:
    unlearned = Predictions(
        predictions.truth,
        predictions.probability,
        predictions.group,
        np.array([True, True, False]),
    )
    found = measure(
        unlearned, predictions.group % 2, ("a", "b", "c"), resamples=20, seed=0, unit="patient"
    )
    assert found.per_class["c"]["auroc"].value is None
    assert found.per_class["a"]["auroc"].value is not None
