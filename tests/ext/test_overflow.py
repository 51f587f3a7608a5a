"""Logits that overflow, and temperatures that are none, make NaN of their own rows alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from usucl_ext import Frames, Selection, hard_negative_nce

HUGE = {torch.float32: 3e38, torch.bfloat16: 3e38, torch.float64: 1.7e308}
NAN, INF = math.nan, math.inf


def run(
    positive: list[list[float]],
    keys: list[list[float]],
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> tuple[Tensor, Selection, dict[str, Tensor]]:
    """Returns the rows' losses, the selection, and the gradients of their sum, for the
    similarities of the positives ``[N, R]`` and of the keys ``[M, N]``, which are of other videos.
    """
    rows = len(positive)
    similarity = torch.tensor(positive, dtype=torch.float64)[..., None]
    leaves = {
        "anchors": torch.eye(rows, dtype=torch.float64),
        "positives": torch.eye(rows, dtype=torch.float64)[:, None] * similarity,
        "keys": torch.tensor(keys, dtype=torch.float64),
    }
    leaves = {name: leaf.to(dtype).requires_grad_() for name, leaf in leaves.items()}
    tensors = {name: value for name, value in options.items() if isinstance(value, Tensor)}
    leaves |= {name: value for name, value in tensors.items() if value.requires_grad}
    video = torch.zeros(rows, dtype=torch.int64)
    anchors = Frames(leaves["anchors"], video, torch.zeros(rows))
    blocks = Frames(leaves["keys"], torch.ones(len(keys)).long(), torch.zeros(len(keys)))
    given: dict[str, Any] = {"window": None, "intra_k": 0, "cross_k": len(keys), **options}
    loss, selection = hard_negative_nce(
        anchors, leaves["positives"], blocks, reduction="none", return_selection=True, **given
    )
    loss.sum().backward()
    return loss.detach(), selection, {name: leaf.grad for name, leaf in leaves.items()}


@pytest.mark.parametrize("soft", [None, 0.07], ids=["each key", "soft"])
@pytest.mark.parametrize("dtype", HUGE, ids=str)
def test_a_key_infinitely_far_below_has_no_share(
    impl: str, dtype: torch.dtype, soft: float | None
) -> None:
    """The key's weight is 0: loss and gradients are those without it."""
    options = {"temperature": 0.01, "soft_nn_temperature": soft, "impl": impl}
    learnt = torch.tensor(0.01, dtype=torch.float64, requires_grad=True)
    positive, keys = [[0.5], [0.25]], [[0.5, 0.25], [0.25, 0.375]]
    far = [-HUGE[dtype], -100.0]
    loss, _, grads = run(positive, keys, dtype, **{**options, "temperature": learnt})
    with_far, _, far_grads = run(
        positive, [far, *keys], dtype, **{**options, "temperature": learnt}
    )
    torch.testing.assert_close(with_far, loss)
    assert (far_grads["keys"][0, 0] == 0).all()
    for name in ("positives", "temperature"):
        assert far_grads[name].isfinite().all(), name
    torch.testing.assert_close(far_grads["keys"][1:], grads["keys"])
    alone, _, far_grads = run([[0.5]], [[-HUGE[dtype]]], dtype, **options)
    assert alone.tolist() == [0.0]
    assert all((grad == 0).all() for grad in far_grads.values())


CASES: dict[str, tuple[list[float], list[float]]] = {
    "a key far above": ([0.5], [1.0, 0.25]),
    "all keys far above": ([0.5], [1.0, 1.0]),
    "a positive far below": ([-1.0], [0.0, 0.25]),
    "both as large": ([1.0], [1.0, 0.25]),
    "both as far below": ([-1.0], [-1.0, -1.0]),
    "a positive and a key at either end": ([-1.0], [1.0, -1.0]),
    "one of two positives": ([0.5, -1.0], [0.5, 0.25]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("soft", [None, 0.07], ids=["each key", "soft"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_row_whose_loss_overflows_is_nan_alone(
    impl: str, dtype: torch.dtype, soft: float | None, case: str
) -> None:
    """Whole numbers above stand for so many times the greatest number of the dtype."""
    positive, keys = CASES[case]

    def scaled(value: float) -> float:
        return value * HUGE[dtype] if abs(value) == 1 else value

    temperature = torch.tensor(0.01, dtype=dtype, requires_grad=True)
    quiet = [0.5] * len(positive)
    loss, _, grads = run(
        [[scaled(s) for s in positive], quiet],
        [[scaled(s), 0.25] for s in keys],
        dtype,
        temperature=temperature,
        soft_nn_temperature=soft,
        impl=impl,
    )
    assert loss.isnan().tolist() == [True, False]
    assert grads["anchors"][0].isnan().all() and grads["positives"][0].isnan().all()
    assert grads["positives"][1].isfinite().all()
    assert (grads["keys"][:, 0] == 0).all() and grads["keys"].isfinite().all()
    temperature_alone = torch.tensor(0.01, dtype=dtype, requires_grad=True)
    alone, _, expected = run(
        [quiet],
        [[0.25]] * len(keys),
        dtype,
        temperature=temperature_alone,
        soft_nn_temperature=soft,
        impl=impl,
    )
    assert loss[1] == alone[0]
    torch.testing.assert_close(grads["temperature"], expected["temperature"])


def test_a_positive_without_weight_does_not_overflow(impl: str) -> None:
    loss, _, grads = run(
        [[0.5, -3e38]],
        [[0.25], [0.5]],
        temperature=0.01,
        positive_weights=torch.tensor([[2.0, 0.0]]),
        impl=impl,
    )
    assert loss.tolist() == run([[0.5]], [[0.25], [0.5]], temperature=0.01, impl=impl)[0].tolist()
    assert all(grads[name].isfinite().all() for name in ("keys", "positives"))


def test_a_large_positive_leaves_nothing_to_learn(impl: str) -> None:
    loss, _, grads = run([[3e38]], [[0.5], [0.25]], temperature=0.01, impl=impl)
    assert loss.tolist() == [0.0]
    assert all((grad == 0).all() for grad in grads.values())


@pytest.mark.parametrize("name", ["temperature", "soft_nn_temperature"])
@pytest.mark.parametrize("value", [0.0, -0.0, -0.07, NAN, INF, -INF, 1e-40])
def test_a_temperature_that_is_none_makes_every_row_nan(impl: str, value: float, name: str) -> None:
    """As numbers, these are refused; a learnt temperature that drifts there is seen at once."""
    learnt = torch.tensor(value, requires_grad=True)
    for keys in ([[0.25, 0.5], [0.5, 0.25]], [[NAN, NAN]]):  # with and without negatives
        loss, selection, grads = run([[0.5], [0.25]], keys, impl=impl, **{name: learnt})
        assert loss.isnan().all()
        assert (selection.cross_index == -1).all()
        assert grads["anchors"].isnan().all() and grads["positives"].isnan().all()
        assert (grads["keys"] == 0).all() and learnt.grad == 0
        learnt.grad = None


@pytest.mark.parametrize("name", ["temperature", "soft_nn_temperature"])
def test_the_least_temperatures_have_finite_derivatives(impl: str, name: str) -> None:
    learnt = torch.tensor(1e-25, requires_grad=True)
    loss, _, grads = run([[0.5]], [[0.25], [0.125]], impl=impl, **{name: learnt})
    assert loss.isfinite().all()
    assert all(grad.isfinite().all() for grad in grads.values())
