"""The loss: oracle = reference = native, and the cases the contract names."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from comparison import same_selection
from hypothesis import given
from strategies import Problem, keys_of, one_anchor, problems
from tolerances import assert_close

from usucl_ext import Frames, hard_negative_nce

NAN, INF = float("nan"), float("inf")


def check(problem: Problem, impl: str, device: torch.device) -> None:
    exact = impl == "native"
    truth = problem.judge()
    allowance = truth if exact else problem.judge(exact_chain=False)
    loss, selection = hard_negative_nce(
        problem.to(device).anchors,
        problem.to(device).positives,
        problem.to(device).blocks,
        return_selection=True,
        impl=impl,
        **problem.to(device).options,
    )
    same_selection(selection, truth.selection)
    assert loss.dtype == problem.arithmetic
    truth.loss.condition = allowance.loss.condition
    assert_close(loss, truth.loss, problem.arithmetic, "loss")


@given(problem=problems())
def test_matches_oracle(problem: Problem, impl: str, device: torch.device) -> None:
    check(problem, impl, device)


@given(problem=problems(dtypes=(torch.float64,)))
def test_matches_oracle_float64(problem: Problem, impl: str, device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("float64 is a CPU dtype")
    check(problem, impl, device)


@given(problem=problems(dtypes=(torch.float32, torch.float64)))
def test_one_double_makes_all_double(problem: Problem, impl: str, device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("float64 is a CPU dtype")
    check(problem, impl, device)


@given(problem=problems(on_grid=False, spoiled=False))
def test_matches_oracle_on_real_values(problem: Problem, impl: str, device: torch.device) -> None:
    """Close keys may swap places, which moves the loss no more than their distance does."""
    problem.options["max_similarity"] = None  # a key on the limit would come or go
    truth = problem.judge(exact_chain=impl == "native")
    moved = problem.to(device)
    loss = hard_negative_nce(
        moved.anchors, moved.positives, moved.blocks, impl=impl, **moved.options
    )
    assert_close(loss, truth.loss, problem.arithmetic, "loss")


# --- by hand --------------------------------------------------------------------------------------


@pytest.fixture
def loss_of(impl: str, device: torch.device) -> Any:
    """A function (anchors, positives, keys, **options) that returns the loss as a list."""

    def call(anchors: Frames, positives: Any, keys: Frames, **options: Any) -> Any:
        options = {"window": (0.0, INF), "intra_k": 9, "cross_k": 9, "temperature": 1.0, **options}
        options.setdefault("reduction", "none")

        def move(frames: Frames) -> Frames:
            return Frames(*(None if x is None else x.to(device) for x in frames))

        positives = torch.as_tensor(positives, dtype=torch.float32, device=device)
        return hard_negative_nce(
            move(anchors), positives, move(keys), impl=impl, **options
        ).tolist()

    return call


def test_two_negatives_by_hand(loss_of: Any) -> None:
    keys = keys_of([0.5, 0.25], [0, 1], [1.0, 1.0])
    t = 0.5
    expected = math.log(math.exp(0.75 / t) + math.exp(0.5 / t) + math.exp(0.25 / t)) - 0.75 / t
    [loss] = loss_of(one_anchor(), [[0.75]], keys, temperature=t)
    assert loss == pytest.approx(expected, rel=1e-6)


def test_soft_nearest_neighbour_by_hand(loss_of: Any) -> None:
    keys = keys_of([0.5, 0.25, -0.5], [1, 1, 1])
    s = np.array([0.5, 0.25, -0.5])
    weights = np.exp(s / 0.25)
    c = float((weights * s).sum() / weights.sum())
    [loss] = loss_of(one_anchor(), [[0.75]], keys, soft_nn_temperature=0.25)
    assert loss == pytest.approx(math.log1p(math.exp(c - 0.75)), rel=1e-6)


def test_soft_nearest_neighbour_is_absent_without_cross_video_keys(loss_of: Any) -> None:
    keys = keys_of([0.5], [0], [1.0])
    hard, soft = (
        loss_of(one_anchor(), [[0.75]], keys, soft_nn_temperature=u) for u in (None, 0.07)
    )
    assert hard == soft and hard[0] == pytest.approx(math.log1p(math.exp(-0.25)), rel=1e-6)
    assert loss_of(one_anchor(), [[0.75]], keys, intra_k=0, soft_nn_temperature=0.07) == [0.0]


def test_several_positives_are_the_mean_of_each_alone(loss_of: Any) -> None:
    keys = keys_of([0.5, 0.25], [0, 1], [1.0, 1.0])
    alone = [loss_of(one_anchor(), [[p]], keys)[0] for p in (0.75, -0.5, 0.0)]
    together = loss_of(one_anchor(), [[[0.75], [-0.5], [0.0]]], keys)
    assert together == pytest.approx([sum(alone) / 3], rel=1e-6)


def test_reductions(loss_of: Any) -> None:
    """The mean divides by N, counting rows of loss 0."""
    anchors = keys_of([1.0, -1.0, 1.0], [0, 0, -1])
    keys = keys_of([0.5, 0.25], [1, 1])
    rows = loss_of(anchors, [[0.75]] * 3, keys)
    assert rows[2] == 0.0 and rows[0] > 0
    assert loss_of(anchors, [[0.75]] * 3, keys, reduction="sum") == pytest.approx(sum(rows))
    assert loss_of(anchors, [[0.75]] * 3, keys, reduction="mean") == pytest.approx(sum(rows) / 3)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_no_anchors(reduction: str, loss_of: Any) -> None:
    anchors, keys = keys_of([], []), keys_of([0.5], [1])
    expected: Any = [] if reduction == "none" else 0.0
    assert loss_of(anchors, torch.empty(0, 1), keys, reduction=reduction) == expected


def test_no_keys(loss_of: Any) -> None:
    assert loss_of(one_anchor(), [[0.75]], keys_of([], [])) == [0.0]


def test_nothing_asked_for(loss_of: Any) -> None:
    keys = keys_of([0.5], [1])
    assert loss_of(one_anchor(), [[0.75]], keys, intra_k=0, cross_k=0, window=None) == [0.0]


def test_rows_that_are_not_finite_stay_alone(loss_of: Any) -> None:
    """A bad anchor or positive gives NaN, even without negatives or without a video."""
    anchors = keys_of([1.0, NAN, 1.0, INF, NAN, 1e30, 1.0], [0, 0, 0, 0, -1, 0, -1])
    positives = [[0.75], [0.75], [NAN], [0.75], [0.75], [1e30], [INF]]
    rows = loss_of(anchors, positives, keys_of([0.5], [1]))
    assert rows[0] == pytest.approx(math.log1p(math.exp(-0.25)), rel=1e-6)
    assert np.isnan(rows[1:]).all()
    assert np.isnan(loss_of(anchors, positives, keys_of([0.5], [1]), reduction="mean"))
    assert np.isnan(loss_of(anchors, positives, keys_of([], []))[1:]).all()


def test_one_bad_positive_of_several_spoils_its_anchor(impl: str, device: torch.device) -> None:
    anchors = keys_of([1.0, 1.0], [0, 0])
    positives = torch.tensor([[[0.5], [NAN]], [[0.5], [0.25]]], device=device)
    keys = keys_of([0.5], [1])
    loss, selection = hard_negative_nce(
        Frames(*(x if x is None else x.to(device) for x in anchors)),
        positives,
        Frames(*(x if x is None else x.to(device) for x in keys)),
        window=None,
        intra_k=0,
        cross_k=1,
        reduction="none",
        return_selection=True,
        impl=impl,
    )
    assert torch.isnan(loss).tolist() == [True, False]
    assert selection.cross_index.tolist() == [[-1], [0]]


def test_large_logits_do_not_overflow(loss_of: Any) -> None:
    keys = keys_of([1.0, -1.0], [1, 1])
    rows = loss_of(one_anchor(), [[-1.0]], keys, temperature=1e-3)
    assert rows == pytest.approx([2000.0], rel=1e-6)
    assert loss_of(one_anchor(), [[1.0]], keys_of([-1.0], [1]), temperature=1e-3) == [0.0]


def test_limit_does_not_touch_the_positive(loss_of: Any) -> None:
    keys = keys_of([0.5], [1])
    free = loss_of(one_anchor(), [[1.0]], keys)
    assert loss_of(one_anchor(), [[1.0]], keys, max_similarity=0.75) == free
