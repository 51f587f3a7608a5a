"""Plain CPU calls bypass the dispatcher, and must not miss what else PyTorch is doing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from strategies import Problem, plain_problem
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from usucl_ext import Frames, hard_negative_nce, select_negatives
from usucl_ext._library import _native

pytestmark = pytest.mark.skipif(_native is None, reason="no native library")
CPU = torch.device("cpu")


def run(problem: Problem, **options: Any) -> Any:
    given = {**problem.options, "impl": "native", **options}
    return hard_negative_nce(problem.anchors, problem.positives, problem.blocks, **given)


def with_gradient(problem: Problem) -> list[torch.Tensor]:
    leaves = [problem.anchors.embedding, problem.positives, problem.blocks[0].embedding]
    for leaf in leaves:
        leaf.requires_grad_()
    return leaves


def fresh_options(number: float) -> dict[str, Any]:
    """Returns a window and a temperature that no other test has put into a cache."""
    return {"window": (0.1, 0.5 + number), "temperature": 0.1 + number}


def test_a_default_device_is_for_other_tensors() -> None:
    problem = plain_problem(CPU)
    leaves = with_gradient(problem)
    expected = run(problem)
    gradients = torch.autograd.grad(expected, leaves)
    torch.set_default_device("meta")
    try:
        loss = run(problem)
        found = torch.autograd.grad(loss, leaves)
        selection = select_negatives(
            problem.anchors, problem.blocks, window=(0.1, 0.5), intra_k=2, cross_k=3, impl="native"
        )
    finally:
        torch.set_default_device(None)
    assert torch.equal(loss, expected)
    assert all(map(torch.equal, found, gradients))
    assert all(x.device == CPU for x in selection)


def test_a_fake_call_leaves_nothing_behind() -> None:
    options = fresh_options(0.0101)
    with FakeTensorMode(allow_non_fake_inputs=True):
        run(plain_problem(CPU), **options)
    assert type(run(plain_problem(CPU), **options)) is torch.Tensor


def test_a_plain_call_leaves_nothing_that_a_fake_one_could_find() -> None:
    options = fresh_options(0.0102)
    run(plain_problem(CPU), **options)
    problem = plain_problem(CPU)
    with FakeTensorMode() as mode:
        frames = [
            Frames(*(None if x is None else mode.from_tensor(x) for x in f))
            for f in (problem.anchors, *problem.blocks)
        ]
        loss = hard_negative_nce(
            frames[0],
            mode.from_tensor(problem.positives),
            frames[1:],
            **{**problem.options, "impl": "native", **options},
        )
    assert loss.shape == ()


def test_a_traced_call_leaves_nothing_behind() -> None:
    options = fresh_options(0.0103)
    problem = plain_problem(CPU)

    def loss_of(positives: torch.Tensor) -> torch.Tensor:
        problem.positives = positives
        return run(problem, **options)

    graph = make_fx(loss_of, tracing_mode="fake", _allow_non_fake_inputs=True)(problem.positives)
    assert any("usucl" in str(node.target) for node in graph.graph.nodes)
    assert type(run(plain_problem(CPU), **options)) is torch.Tensor


def test_a_function_transform_leaves_nothing_behind() -> None:
    options = fresh_options(0.0104)
    problem = plain_problem(CPU)

    def loss_of(positives: torch.Tensor) -> torch.Tensor:
        return hard_negative_nce(
            problem.anchors,
            positives,
            problem.blocks,
            **{**problem.options, "impl": "native", **options},
        )

    with pytest.raises(RuntimeError):  # transforms of the operator are not supported
        torch.func.grad(loss_of)(problem.positives)
    assert torch.isfinite(run(plain_problem(CPU), **options))


def test_inference_mode_leaves_nothing_behind() -> None:
    options = fresh_options(0.0105)
    with torch.inference_mode():
        run(plain_problem(CPU), **options)
    for impl in ("native", "reference"):
        problem = plain_problem(CPU)
        leaves = with_gradient(problem)
        loss = run(problem, **{**options, "impl": impl})
        assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(loss, leaves))


def test_a_changed_selection_is_noticed() -> None:
    problem = plain_problem(CPU)
    with_gradient(problem)
    loss, selection = run(problem, return_selection=True)
    selection.cross_index.sub_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_lazily_negated_values_are_read() -> None:
    problem = plain_problem(CPU)
    expected = run(problem)
    embedding = torch._neg_view(-problem.anchors.embedding)
    assert embedding.is_neg()
    problem.anchors = problem.anchors._replace(embedding=embedding)
    assert torch.equal(run(problem), expected)


@pytest.mark.parametrize("impl", ["native", "reference"])
def test_a_tangent_is_refused(impl: str) -> None:
    problem = plain_problem(CPU)
    with forward_ad.dual_level():
        embedding = problem.anchors.embedding
        problem.anchors = problem.anchors._replace(
            embedding=forward_ad.make_dual(embedding, torch.ones_like(embedding))
        )
        with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            run(problem, impl=impl)


def test_a_batch_of_upstream_gradients_is_refused() -> None:
    problem = plain_problem(CPU, reduction="none")
    leaves = with_gradient(problem)
    loss = run(problem)
    with pytest.raises(RuntimeError, match="one upstream gradient at a time"):
        torch.autograd.grad(loss, leaves, torch.eye(len(loss)), is_grads_batched=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_limit_below_the_least_normal_number(dtype: torch.dtype) -> None:
    """Ties at the largest negative normal similarity, some of them met before lower indices."""
    tiny = torch.finfo(dtype).tiny
    keys = torch.full((2000, 1), -1.0, dtype=dtype)
    for first in range(12, 2000, 90):
        keys[first : first + 60 : 5] = -tiny
    anchors = Frames(
        torch.ones(1, 1, dtype=dtype), torch.zeros(1, dtype=torch.int64), torch.zeros(1)
    )
    block = Frames(keys, torch.ones(2000, dtype=torch.int64), torch.zeros(2000))
    for k in (1, 4, 40):
        options = {"window": None, "intra_k": 0, "cross_k": k}
        native = select_negatives(anchors, block, impl="native", **options)
        expected = select_negatives(anchors, block, impl="reference", **options)
        assert torch.equal(native.cross_index, expected.cross_index)
