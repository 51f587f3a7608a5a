"""Metrics, bootstrap and retrieval against hand-worked values and invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from usucl._spread import effective_rank, uniformity
from usucl.embedding import evenly_spaced
from usucl.evaluation.bootstrap import difference, estimate, resample_weights
from usucl.evaluation.metrics import (
    auroc,
    balanced_accuracy,
    group_mean,
    macro_auroc,
)
from usucl.evaluation.retrieval import NEAR_FRAMES, gallery_frames, query_auroc

pytestmark = pytest.mark.usefixtures("one_thread")

ROUNDING = 1e-9  # float64 sums of at most some thousand terms


def test_auroc_by_hand() -> None:
    # pairs won: 0.9 beats both, 0.4 beats 0.1 and ties with 0.4
    assert auroc(np.array([0.9, 0.4]), np.array([0.4, 0.1])) == (2 + 1.5) / 4
    assert math.isnan(auroc(np.array([]), np.array([1.0])))


def test_uniformity_by_hand() -> None:
    # distances squared of e1, e2, -e1: 2, 4, 2
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    expected = math.log((2 * math.exp(-4) + math.exp(-8)) / 3)
    assert uniformity(points) == pytest.approx(expected, abs=ROUNDING)
    assert uniformity(torch.ones(5, 4) / 2) == pytest.approx(0, abs=ROUNDING)


def test_effective_rank_by_hand() -> None:
    assert effective_rank(torch.eye(6)) == pytest.approx(6, abs=ROUNDING)
    assert effective_rank(torch.ones(7, 3)) == pytest.approx(1, abs=1e-6)
    # singular values 3 and 1
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    rank = effective_rank(torch.diag(torch.tensor([3.0, 1.0])))
    assert rank == pytest.approx(math.exp(entropy), abs=ROUNDING)


@given(st.integers(0, 2**32 - 1))
def test_weights_are_repetitions(seed: int) -> None:
    """A figure at weights w is scikit-learn's figure of each group repeated w times."""
    rng = np.random.default_rng(seed)
    groups, n = 6, 40
    group = rng.integers(groups, size=n)
    group[:groups] = np.arange(groups)
    truth = rng.integers(3, size=n)
    score = rng.integers(5, size=(n, 3)) / 4  # with ties
    weights = rng.integers(0, 3, size=groups)
    repeated = np.repeat(np.arange(n), weights[group])
    if len(np.unique(truth[repeated])) < 3:
        return
    row = weights[None].astype(float)
    predicted = score.argmax(1)
    got = balanced_accuracy(truth, predicted, group, 3)(row)[0]
    expected = balanced_accuracy_score(truth[repeated], predicted[repeated])
    assert got == pytest.approx(expected, abs=ROUNDING)
    got = macro_auroc(truth, score, group, [0, 1, 2])(row)[0]
    each = [roc_auc_score(truth[repeated] == c, score[repeated, c]) for c in range(3)]
    assert got == pytest.approx(np.mean(each), abs=ROUNDING)


# Intervals


def test_interval_covers_the_mean_of_normal_groups() -> None:
    """95 % intervals of the mean of 40 normal values cover it in about 95 % of 300 trials."""
    rng = np.random.default_rng(0)
    intervals = [
        estimate(group_mean(rng.normal(size=40)), 40, resamples=400, seed=i) for i in range(300)
    ]
    covered = np.mean([e.low <= 0 <= e.high for e in intervals])  # type: ignore[operator]
    # the percentile bootstrap of 40 values covers some 93.5 %; 300 trials have a deviation of 1.4 %
    assert 0.89 <= covered <= 0.98


def test_interval_is_a_function_of_the_seed() -> None:
    values = group_mean(np.random.default_rng(1).normal(size=9))
    assert estimate(values, 9, seed=3) == estimate(values, 9, seed=3)
    assert estimate(values, 9, seed=3) != estimate(values, 9, seed=4)
    weights = resample_weights(9, 50, seed=3)
    assert (weights.sum(1) == 9).all()


def test_paired_difference_drops_what_both_share() -> None:
    shared = np.random.default_rng(2).normal(size=10)
    apart = difference(group_mean(shared + 0.25), group_mean(shared))
    e = estimate(apart, 10)
    assert e.value == pytest.approx(0.25) and e.low == pytest.approx(0.25)
    assert e.high == pytest.approx(0.25)


def test_no_interval_where_there_can_be_none() -> None:
    few = estimate(group_mean([0.1, 0.2, 0.3]), 3)
    assert few.value == pytest.approx(0.2) and few.low is None and "3 patients" in (few.note or "")
    lone = estimate(group_mean(np.arange(9.0)), 9, smallest_class=1)
    assert lone.low is None and "one patient" in (lone.note or "")
    undefined = estimate(group_mean([]), 0)
    assert undefined.value is None and undefined.low is None


# Retrieval


@given(st.integers(2, 400), st.integers(1, 12), st.integers(1, 30))
def test_gallery_holds_queries_and_their_neighbours(n: int, queries: int, spread: int) -> None:
    frames, is_query, is_spread = gallery_frames(n, queries, spread)
    assert (np.diff(frames) > 0).all() and frames[0] >= 0 and frames[-1] < n
    assert is_query.sum() == min(queries, n) and is_spread.sum() == min(spread, n)
    for query in frames[is_query]:
        near = range(max(0, query - NEAR_FRAMES), min(n, query + NEAR_FRAMES + 1))
        assert set(near) <= set(frames.tolist())
    assert len(evenly_spaced(n, None)) == n


def test_query_auroc_by_hand() -> None:
    frames = np.arange(20)
    similarity = 1.0 - np.abs(frames - 8) / 20  # falls with distance, the query's own frame on top
    perfect = query_auroc(similarity, 8, frames, 20, np.array([0.0, 0.1]))
    # 0.15 of 20 frames is 3: no frame is both beyond the neighbours and near
    assert perfect["temporal"] == 1 and math.isnan(perfect["temporal_hard"])
    assert perfect["same_video"] == 1
    similarity[8] = -1.0  # the query's own frame does not count
    assert query_auroc(similarity, 8, frames, 20, np.array([0.0]))["temporal"] == 1
    assert query_auroc(-similarity, 8, frames, 20, np.array([0.0]))["temporal"] == 0


# Embeddings
