"""``margin`` and ``positive_weights``: what they mean, what they refuse, what they cost nothing of.

Their values are judged by the oracle with all others; see ``strategies.problems``.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from strategies import Problem, plain_problem
from torch import Tensor

from usucl_ext import HardNegativeNCE, hard_negative_nce

CPU = torch.device("cpu")


def run(problem: Problem, impl: str, **options: Any) -> Any:
    given = {**problem.options, "return_selection": True, "impl": impl, **options}
    return hard_negative_nce(problem.anchors, problem.positives, problem.blocks, **given)


def positive_similarities(problem: Problem) -> Tensor:
    return (problem.anchors.embedding[:, None] * problem.positives).sum(-1)


def found(selection: Any) -> Tensor:
    """Similarities of the selected keys, NaN where there is none."""
    every = torch.cat([selection.intra_similarity, selection.cross_similarity], dim=1)
    return every.masked_fill(every == -torch.inf, torch.nan)


# --- margin ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [-0.4, 0.0, 0.3])
def test_no_negative_exceeds_the_greatest_positive_by_more(
    impl: str, device: torch.device, margin: float
) -> None:
    problem = plain_problem(device, intra_k=21, cross_k=21)
    _, everything = run(problem, impl)
    _, kept = run(problem, impl, margin=margin)
    limit = positive_similarities(problem).amax(1, keepdim=True) + margin
    assert not (found(kept) > limit + 1e-6).any()
    assert (found(everything) <= limit - 1e-6).sum() == found(kept).isfinite().sum()
    assert found(kept).isfinite().sum() < found(everything).isfinite().sum()


def test_one_margin_per_anchor_is_that_of_each(impl: str, device: torch.device) -> None:
    problem = plain_problem(device, reduction="none")
    margins = torch.tensor([-0.5, 0.0, 0.25, math.inf, -math.inf], device=device)
    together, _ = run(problem, impl, margin=margins)
    for i, margin in enumerate(margins.tolist()):
        alone, _ = run(problem, impl, margin=margin)
        as_tensor, _ = run(problem, impl, margin=torch.tensor(margin))
        assert together[i] == alone[i] == as_tensor[i]
    assert together[4] == 0, "nothing is allowed, so there is no negative"


def test_both_limits_hold(impl: str, device: torch.device) -> None:
    problem = plain_problem(device, intra_k=21, cross_k=21)
    _, selection = run(problem, impl, margin=0.1, max_similarity=0.2)
    limit = (positive_similarities(problem).amax(1, keepdim=True) + 0.1).clamp(max=0.2)
    assert not (found(selection) > limit + 1e-6).any()
    assert found(selection).isfinite().any()


def test_no_gradient_flows_through_the_limit(impl: str, device: torch.device) -> None:
    """Negatives that are selected anyway give the same gradients without it, to the bit."""
    problem = plain_problem(device, intra_k=21, cross_k=21)
    problem.options["margin"] = 0.2
    with_margin = problem.run(impl)
    struck = found(with_margin.selection)
    problem.options |= {"margin": None, "max_similarity": None}
    kept = [with_margin.selection.intra_index, with_margin.selection.cross_index]
    allowed = torch.zeros(5, 21, dtype=torch.bool, device=device)
    for index in kept:
        rows = torch.arange(5, device=device)[:, None].expand_as(index)
        allowed[rows[index >= 0], index[index >= 0]] = True
    assert struck.isnan().any() and allowed.any()
    losses = []
    anchors = problem.anchors.embedding.detach().requires_grad_()
    for i in range(5):
        blocks, first = [], 0
        for block in problem.blocks:
            mask = allowed[i, first : first + len(block.video)]
            blocks.append(block._replace(video=torch.where(mask, block.video, -1)))
            first += len(block.video)
        options = {**problem.options, "reduction": "none"}
        frames = problem.anchors._replace(embedding=anchors)
        losses.append(hard_negative_nce(frames, problem.positives, blocks, impl=impl, **options)[i])
    torch.stack(losses).mean().backward()
    torch.testing.assert_close(with_margin.anchors, anchors.grad)


# --- weights of the positives ---------------------------------------------------------------------


def test_equal_weights_are_the_mean(impl: str, device: torch.device) -> None:
    problem = plain_problem(device)
    expected, _ = run(problem, impl)
    same, _ = run(problem, impl, positive_weights=torch.full((5, 2), 2.0, device=device))
    torch.testing.assert_close(same, expected, rtol=1e-6, atol=0)


def test_a_weight_of_zero_leaves_a_positive_out(impl: str, device: torch.device) -> None:
    problem = plain_problem(device, reduction="none")
    weights = torch.tensor([[0.0, 2.0]], device=device).expand(5, 2)
    left_out, _ = run(problem, impl, positive_weights=weights)
    problem.positives = problem.positives[:, 1]
    assert torch.equal(left_out, run(problem, impl)[0])


@pytest.mark.parametrize("bad", [[-1.0, 2.0], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_weights_without_a_mean_are_refused_on_the_cpu(impl: str, bad: list[float]) -> None:
    problem = plain_problem(CPU)
    weights = torch.ones(5, 2)
    run(problem, impl, positive_weights=weights)  # the next call looks the same
    weights[3] = torch.tensor(bad)
    with pytest.raises(ValueError, match="positive_weights must be non-negative with a positive"):
        run(problem, impl, positive_weights=weights)


def test_weights_without_a_mean_are_nan_where_they_are_not_read(
    impl: str, device: torch.device
) -> None:
    """In a compiled graph: only the loss and the gradients of that anchor."""
    problem = plain_problem(device, reduction="none")
    weights = torch.ones(5, 2, device=device)
    weights[3, 0] = -2.0
    anchors = problem.anchors.embedding.requires_grad_()
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss_of(frames: Any, positives: Tensor, weights: Tensor) -> Any:
        given = {**problem.options, "positive_weights": weights}
        return hard_negative_nce(frames, positives, problem.blocks, impl=impl, **given)

    loss = loss_of(problem.anchors, problem.positives, weights)
    loss.sum().backward()
    assert loss.isnan().tolist() == [False] * 3 + [True, False]
    assert anchors.grad is not None
    assert anchors.grad.isnan().any(1).tolist() == [False] * 3 + [True, False]


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("margin", "0.1", "margin must be a float, got str"),
        ("margin", math.nan, "margin must be a number, got nan"),
        ("margin", torch.zeros(4), r"margin must be .* shape \[\] or \[5\], got .*\[4\]"),
        ("margin", torch.zeros(5, dtype=torch.int64), "margin must be a float or a float tensor"),
        ("positive_weights", [1.0], r"positive_weights must be a torch\.Tensor \[N, R\], got list"),
        ("positive_weights", torch.ones(5, 2).bool(), "positive_weights must be a float tensor"),
        ("positive_weights", torch.ones(5, 3), r"with N = 5, R = 2, got \[5, 3\]"),
    ],
)
def test_wrong_arguments_are_named(impl: str, option: str, value: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        run(plain_problem(CPU), impl, **{option: value})


def test_the_module_takes_both(impl: str, device: torch.device) -> None:
    problem = plain_problem(device)
    weights = torch.tensor([[1.0, 3.0]], device=device).expand(5, 2)
    expected, _ = run(problem, impl, margin=-0.1, positive_weights=weights)
    module = HardNegativeNCE(margin=-0.1, impl=impl, **without(problem.options)).to(device)
    inputs = (problem.anchors, problem.positives, problem.blocks)
    assert torch.equal(module(*inputs, positive_weights=weights), expected)
    assert "margin=-0.1" in repr(module)


def without(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "margin"}


def test_margins_and_weights_compile_into_one_graph(impl: str, device: torch.device) -> None:
    problem = plain_problem(device)
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss_of(margin: Tensor, weights: Tensor) -> Any:
        given = {**problem.options, "margin": margin, "positive_weights": weights}
        frames, blocks = problem.anchors, problem.blocks
        return hard_negative_nce(frames, problem.positives, blocks, impl=impl, **given)

    weights = torch.tensor([[1.0, 2.0]], device=device).repeat(5, 1)
    for margin in (-0.3, 0.0, 0.4):
        compiled = loss_of(torch.tensor(margin, device=device), weights)
        expected, _ = run(problem, impl, margin=margin, positive_weights=weights)
        torch.testing.assert_close(compiled, expected)
