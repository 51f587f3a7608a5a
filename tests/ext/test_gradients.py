"""Gradients against hand-derived and numerical ones, and what autograd promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from comparison import assert_gradients
from hypothesis import given
from hypothesis import strategies as st
from strategies import LOW_PRECISION, Problem, plain_problem, problems
from torch import Tensor

from usucl_ext import Frames, hard_negative_nce


def check(problem: Problem, impl: str, device: torch.device) -> None:
    truth = problem.judge()
    if impl == "reference":  # same selection and truth, but a matmul's rounding is allowed
        wide = problem.judge(exact_chain=False)
        for name in ("anchors", "positives", "temperature", "soft_nn_temperature"):
            getattr(truth, name).condition = getattr(wide, name).condition
        for ours, theirs in zip(truth.blocks, wide.blocks, strict=True):
            ours.condition = theirs.condition
    assert_gradients(problem.to(device).run(impl), problem, truth)


@given(problem=problems())
def test_matches_oracle(problem: Problem, impl: str, device: torch.device) -> None:
    check(problem, impl, device)


@given(problem=problems(dtypes=(torch.float64,)))
def test_matches_oracle_float64(problem: Problem, impl: str, device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("float64 is a CPU dtype")
    check(problem, impl, device)


@given(problem=problems(on_grid=False, spoiled=False))
def test_native_matches_oracle_on_real_values(
    problem: Problem, native_device: torch.device
) -> None:
    check(problem, "native", native_device)


@given(problem=problems(), data=st.data())
def test_gradients_go_only_where_they_are_wanted(
    problem: Problem, data: st.DataObject, impl: str, device: torch.device
) -> None:
    """Which blocks require a gradient changes no other gradient, bit for bit."""
    problem = problem.to(device)
    wanted = [data.draw(st.booleans()) for _ in problem.blocks]
    everything, some = problem.run(impl), problem.run(impl, wanted)
    for ours, full, needs in zip(some.blocks, everything.blocks, wanted, strict=True):
        assert needs or ours is None
        if ours is not None and full is not None:
            torch.testing.assert_close(ours, full, rtol=0, atol=0, equal_nan=True)
    for name in ("loss", "anchors", "positives"):
        a, b = getattr(everything, name), getattr(some, name)
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("soft_nn_temperature", [None, 0.3])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradcheck(soft_nn_temperature: float | None, reduction: str, impl: str) -> None:
    """Numerical differences in float64, far from where the selection would change."""
    problem = plain_problem(
        dtype=torch.float64,
        rows=3,
        dim=3,
        keys=(6, 7),
        reduction=reduction,
        soft_nn_temperature=soft_nn_temperature,
    )
    ranked = oracle.select_negatives(
        problem.anchors, problem.blocks, window=(0.5, 4.0), intra_k=9, cross_k=13
    )
    for similarity in (ranked.intra_similarity, ranked.cross_similarity):
        with np.errstate(invalid="ignore"):
            gaps = -np.diff(similarity, axis=1)
        assert gaps[np.isfinite(gaps)].min() > 1e-4  # steps are 1e-6

    double = torch.float64
    temperature = torch.tensor(0.2, dtype=double)
    soft = None if soft_nn_temperature is None else torch.tensor(soft_nn_temperature, dtype=double)
    leaves = [problem.anchors.embedding, problem.positives]
    leaves += [block.embedding for block in problem.blocks]
    leaves += [temperature] if soft is None else [temperature, soft]

    def loss(anchors: Tensor, positives: Tensor, a: Tensor, b: Tensor, *t: Tensor) -> Any:
        options = {**problem.options, "temperature": t[0]}
        if len(t) > 1:
            options["soft_nn_temperature"] = t[1]
        blocks = [
            block._replace(embedding=x) for block, x in zip(problem.blocks, (a, b), strict=True)
        ]
        return hard_negative_nce(
            problem.anchors._replace(embedding=anchors), positives, blocks, impl=impl, **options
        )

    inputs = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(loss, inputs)


def test_upstream_gradients_are_honoured_row_by_row(impl: str, device: torch.device) -> None:
    problem = plain_problem(device, reduction="none", rows=6)
    whole = problem.run(impl)
    rows = []
    for i in range(6):
        problem_i = plain_problem(device, reduction="none", rows=6)
        mask = torch.zeros(6, device=device)
        mask[i] = problem.grad[i]
        problem_i.grad = mask
        rows.append(problem_i.run(impl))
    for i, row in enumerate(rows):
        assert row.anchors is not None and whole.anchors is not None
        assert torch.equal(row.anchors[i], whole.anchors[i])
        others = [j for j in range(6) if j != i]
        assert not row.anchors[others].any()
    for block in range(2):
        summed = torch.stack([row.blocks[block].double() for row in rows]).sum(0)
        torch.testing.assert_close(whole.blocks[block].double(), summed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("anchors", LOW_PRECISION)
@pytest.mark.parametrize("keys", LOW_PRECISION)
def test_gradients_come_in_each_input_s_dtype(
    anchors: torch.dtype, keys: torch.dtype, impl: str, device: torch.device
) -> None:
    problem = plain_problem(device)
    problem.anchors = problem.anchors._replace(embedding=problem.anchors.embedding.to(anchors))
    problem.blocks[1] = problem.blocks[1]._replace(embedding=problem.blocks[1].embedding.to(keys))
    problem.positives = problem.positives.to(keys)
    problem.options["temperature"] = torch.tensor(0.2, dtype=torch.float64, device=device)
    outcome = problem.run(impl)
    assert outcome.loss.dtype == torch.float32
    assert outcome.selection.cross_similarity.dtype == torch.float32
    grads = [outcome.anchors, outcome.positives, *outcome.blocks, outcome.temperature]
    dtypes = [anchors, keys, torch.float32, keys, torch.float64]
    assert [g.dtype for g in grads if g is not None] == dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_gradients_are_summed_before_they_are_rounded(
    dtype: torch.dtype, impl: str, device: torch.device
) -> None:
    """60 anchors of both signs share three keys: partial sums in the key's dtype would show."""
    problem = plain_problem("cpu", rows=60, keys=(3,), reduction="none")
    problem.blocks[0] = problem.blocks[0]._replace(embedding=problem.blocks[0].embedding.to(dtype))
    check(problem, impl, device)


@pytest.mark.parametrize("soft_nn_temperature", [None, 0.3])
def test_a_bank_may_be_overwritten_before_backward(
    soft_nn_temperature: float | None, impl: str, device: torch.device
) -> None:
    def gradients(overwrite: bool) -> list[Tensor]:
        problem = plain_problem(device, soft_nn_temperature=soft_nn_temperature)
        anchors = problem.anchors.embedding.requires_grad_()
        positives = problem.positives.requires_grad_()
        batch, bank = problem.blocks
        batch.embedding.requires_grad_()
        loss = hard_negative_nce(
            problem.anchors, positives, problem.blocks, impl=impl, **problem.options
        )
        if overwrite:
            for column in bank[:3]:
                column.fill_(-7)
        return list(torch.autograd.grad(loss, [anchors, positives, batch.embedding]))

    for before, after in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(before, after)


def test_a_bank_is_not_saved(impl: str, device: torch.device) -> None:
    """No copy is kept either: nothing saved for backward has as many rows as the bank."""
    problem = plain_problem(device)
    problem.anchors.embedding.requires_grad_()
    bank = Frames(
        torch.randn(1000, 6, device=device),
        torch.full((1000,), 9, device=device),
        torch.zeros(1000, device=device),
    )
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hard_negative_nce(problem.anchors, problem.positives, [bank], impl=impl, **problem.options)
    assert saved and all(tensor.numel() < 1000 for tensor in saved)
    assert all(tensor.untyped_storage().nbytes() < 4000 for tensor in saved)


def _anchors_loss(problem: Problem, impl: str) -> tuple[Tensor, Tensor]:
    leaf = problem.anchors.embedding.requires_grad_()
    loss = hard_negative_nce(
        problem.anchors, problem.positives, problem.blocks, impl=impl, **problem.options
    )
    assert isinstance(loss, Tensor)
    return leaf, loss


def test_second_derivative_is_refused(impl: str, device: torch.device) -> None:
    leaf, loss = _anchors_loss(plain_problem(device), impl)
    with pytest.raises(RuntimeError, match=r"hard_negative_nce.*second derivative"):
        (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
        torch.autograd.grad(grad.square().sum(), leaf)


def test_backward_twice_over_a_retained_graph(impl: str, device: torch.device) -> None:
    leaf, loss = _anchors_loss(plain_problem(device), impl)
    first = torch.autograd.grad(loss, leaf, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, leaf)[0])


def test_backward_through_an_expanded_upstream_gradient(impl: str, device: torch.device) -> None:
    """loss.sum().backward() hands down a gradient of stride 0."""
    problem = plain_problem(device, reduction="none")
    leaf, loss = _anchors_loss(problem, impl)
    (summed,) = torch.autograd.grad(loss.sum(), leaf, retain_graph=True)
    assert torch.equal(summed, torch.autograd.grad(loss, leaf, torch.ones_like(loss))[0])


@pytest.mark.parametrize("name", ["anchors", "positives", "block", "temperature", "soft"])
def test_each_input_alone_may_require_a_gradient(
    name: str, impl: str, device: torch.device
) -> None:
    problem = plain_problem(
        device,
        temperature=torch.tensor(0.2, device=device),
        soft_nn_temperature=torch.tensor(0.3, device=device),
    )
    everything = problem.run(impl)
    problem = plain_problem(
        device,
        temperature=torch.tensor(0.2, device=device),
        soft_nn_temperature=torch.tensor(0.3, device=device),
    )
    leaf, expected = {
        "anchors": (problem.anchors.embedding, everything.anchors),
        "positives": (problem.positives, everything.positives),
        "block": (problem.blocks[1].embedding, everything.blocks[1]),
        "temperature": (problem.options["temperature"], everything.temperature),
        "soft": (problem.options["soft_nn_temperature"], everything.soft_nn_temperature),
    }[name]
    leaf.requires_grad_()
    loss = hard_negative_nce(
        problem.anchors, problem.positives, problem.blocks, impl=impl, **problem.options
    )
    assert isinstance(loss, Tensor) and expected is not None and expected.any()
    torch.testing.assert_close(torch.autograd.grad(loss, leaf)[0], expected, rtol=1e-6, atol=1e-7)


def test_selection_and_loss_without_leaves_need_no_gradient(
    impl: str, device: torch.device
) -> None:
    problem = plain_problem(device)
    call: Callable[[], Any] = lambda: hard_negative_nce(  # noqa: E731
        problem.anchors,
        problem.positives,
        problem.blocks,
        return_selection=True,
        impl=impl,
        **problem.options,
    )
    assert not call()[0].requires_grad
    problem.anchors.embedding.requires_grad_()
    loss, selection = call()
    assert loss.requires_grad and not any(x.requires_grad for x in selection)
    with torch.no_grad():
        assert not call()[0].requires_grad


def test_one_tensor_as_anchors_positives_and_keys(impl: str, device: torch.device) -> None:
    """In a dense batch every frame has every role, and its gradients add up."""
    apart = plain_problem(device, window=(0.5, 9.0), rows=9)
    frames = apart.blocks[0]
    apart.anchors, apart.positives = frames, frames.embedding.roll(1, dims=0)
    outcome = apart.run(impl)
    parts = [outcome.anchors, outcome.positives.roll(-1, dims=0), outcome.blocks[0]]

    leaf = frames.embedding.detach().clone().requires_grad_()
    shared = frames._replace(embedding=leaf)
    loss = hard_negative_nce(
        shared, leaf.roll(1, dims=0), [shared, apart.blocks[1]], impl=impl, **apart.options
    )
    (grad,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(grad, sum(parts), rtol=1e-5, atol=1e-6)


def test_rows_without_negatives_have_exactly_zero_gradient(impl: str, device: torch.device) -> None:
    problem = plain_problem(device, reduction="sum", window=None, intra_k=0, rows=3)
    problem.anchors = problem.anchors._replace(video=torch.tensor([0, -1, 0], device=device))
    problem.anchors.embedding.data[2] = 0.0
    problem.options["max_similarity"] = -1e-3  # shuts out every key of the zero anchor
    outcome = problem.run(impl)
    assert outcome.anchors is not None and outcome.positives is not None
    assert outcome.anchors[0].any() and not outcome.anchors[1:].any()
    assert outcome.positives[0].any() and not outcome.positives[1:].any()


def test_a_row_that_is_not_finite_leaves_the_others_alone(impl: str, device: torch.device) -> None:
    good = plain_problem(device, reduction="sum")
    bad = plain_problem(device, reduction="sum")
    bad.anchors.embedding[2, 1] = float("nan")
    bad.positives[3, 1, 0] = float("inf")
    without, with_bad = good.run(impl), bad.run(impl)
    for name in ("anchors", "positives"):
        a, b = getattr(without, name), getattr(with_bad, name)
        assert torch.isnan(b[[2, 3]]).all()
        assert torch.equal(a[[0, 1, 4]], b[[0, 1, 4]])
    for block in with_bad.blocks:
        assert block is not None and torch.isfinite(block).all()
