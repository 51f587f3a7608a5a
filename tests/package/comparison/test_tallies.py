"""Figures of several runs are those of scikit-learn on the samples that the weights draw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from made_up_comparison import predictions
from sklearn import metrics

from usucl.comparison.analysis.tallies import Crossing, Weights, classification, mean
from usucl.comparison.measurement.predictions import Predictions

PATIENTS = [f"patient {i}" for i in range(7)]
SEEDS = (3, 4, 9)
CROSSING = Crossing.of(SEEDS, PATIENTS)
Runs = Sequence[tuple[int, Predictions]]


def _runs(classes: tuple[str, ...], *, crossed: bool) -> Runs:
    rng = np.random.default_rng(len(classes))
    return [
        (seed, predictions(rng, PATIENTS if crossed else PATIENTS[i::3], classes=classes))
        for i, seed in enumerate(SEEDS)
    ]


def _drawn(runs: Runs, seed: np.ndarray, patient: np.ndarray) -> Runs:
    """The runs, each sample as often as it is drawn; a run as often as its seed is."""
    found = []
    for (s, p), times in zip(runs, seed.astype(int), strict=True):
        kept = np.repeat(
            np.arange(len(p.truth)), patient[CROSSING.patients_of(p.patient)].astype(int)
        )
        names = tuple(p.patient[i] for i in kept)
        one = Predictions(
            p.task, p.probe, p.level, p.share, p.classes, p.truth[kept], p.probability[kept], names
        )
        found += [(s, one)] * times
    return found


def _auroc(runs: Runs, classes: int) -> float:
    """By the pairs of each run: its AUROC counts as often as it has pairs."""
    each = []
    for c in range(classes):
        value, pairs = [], []
        for _, p in runs:
            positives = (p.truth == c).sum()
            pairs.append(positives * (len(p.truth) - positives))
            value.append(metrics.roc_auc_score(p.truth == c, p.probability[:, c]))
        each.append(np.average(value, weights=pairs))
    return float(np.mean(each))


def _expected(runs: Runs, classes: int) -> dict[str, float]:
    truth = np.concatenate([p.truth for _, p in runs])
    predicted = np.concatenate([p.probability.argmax(1) for _, p in runs])
    figures = {
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
        "macro_f1": metrics.f1_score(truth, predicted, average="macro"),
        "macro_auroc": _auroc(runs, classes),
    }
    if classes == 2:
        figures["sensitivity"] = metrics.recall_score(truth, predicted)
        figures["specificity"] = metrics.recall_score(truth, predicted, pos_label=0)
    return figures


@pytest.mark.parametrize("classes", [("no", "yes"), ("a", "b", "c")], ids=len)
@pytest.mark.parametrize("crossed", [True, False], ids=["crossed", "held out in turn"])
def test_figures_are_those_of_the_samples_drawn(classes: tuple[str, ...], crossed: bool) -> None:
    runs = _runs(classes, crossed=crossed)
    rng = np.random.default_rng(0)
    seed = np.vstack([np.ones(3), np.ones(3), [2, 1, 0], [1, 3, 2]])
    patient = np.vstack([np.ones(7), rng.integers(1, 4, 7), np.ones(7), rng.integers(1, 4, 7)])
    found = classification(runs, CROSSING)
    values = {name: statistic(Weights(seed, patient)) for name, statistic in found.items()}
    for row in range(len(seed)):
        expected = _expected(_drawn(runs, seed[row], patient[row]), len(classes))
        assert {name: v[row] for name, v in values.items()} == pytest.approx(expected, abs=1e-9)


def test_a_lost_class_has_no_figure() -> None:
    of_patient = {name: int(name == PATIENTS[0]) for name in PATIENTS}
    rng = np.random.default_rng(1)
    runs = [
        (s, predictions(rng, PATIENTS, classes=("no", "yes"), of_patient=of_patient)) for s in SEEDS
    ]
    lost = np.ones((1, 7))
    lost[0, 0] = 0
    found = classification(runs, CROSSING)
    for name in ("balanced_accuracy", "macro_auroc", "macro_f1", "sensitivity"):
        assert np.isnan(found[name](Weights(np.ones((1, 3)), lost))).all(), name
    assert np.isfinite(found["specificity"](Weights(np.ones((1, 3)), lost))).all()


def test_mean_counts_every_patient_of_every_seed_once() -> None:
    runs = [
        (3, {PATIENTS[0]: 0.5, PATIENTS[1]: 1.0}),
        (9, {PATIENTS[2]: 0.0, PATIENTS[3]: float("nan")}),
    ]
    statistic = mean(runs, CROSSING)
    assert statistic(CROSSING.ones()) == pytest.approx([0.5])
    weights = Weights(np.array([[1.0, 0.0, 2.0]]), np.array([[3.0, 1, 1, 1, 0, 0, 0]]))
    assert statistic(weights) == pytest.approx([(3 * 0.5 + 1.0) / (3 + 1 + 2)])
