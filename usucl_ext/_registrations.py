"""What PyTorch must know of the native operators besides their kernels.

These are shapes for tracing (fake kernels), gradients, and the calls themselves. Autocast needs
no rule: the operators take every mix of dtypes and accumulate in float32, so nothing is cast,
least of all times, windows and temperatures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._autograd import LossGradients, Saved, Wanted, gradients, look_of
from ._derivatives import NO_SECOND_DERIVATIVE
from ._library import _native
from ._problem import Problem, leaves, spread_leaves
from ._types import Selection
from ._validation import REDUCTIONS, accumulation_dtype


def select_negatives(problem: Problem) -> Selection:
    """Returns the native selection of a checked problem."""
    with torch.no_grad():
        return Selection(
            *torch.ops.usucl.select_negatives(
                _tensors(problem), problem.ranks, problem.max_similarity
            )
        )


def similarities(anchors: Tensor, keys: Tensor, index: Tensor) -> Tensor:
    """Returns the native similarities of checked pairs."""
    with torch.no_grad():
        scores = torch.ops.usucl.similarities(
            anchors.contiguous(), keys.contiguous(), index.contiguous()
        )
    assert isinstance(scores, Tensor)
    return scores


def hard_negative_nce(problem: Problem) -> tuple[Tensor, Selection]:
    """Returns the native loss and selection of a checked problem."""
    loss, *selection, _, _ = torch.ops.usucl.hard_negative_nce(
        _tensors(problem),
        problem.ranks,
        problem.max_similarity,
        REDUCTIONS.index(problem.reduction),
        torch.is_grad_enabled() and problem.anchors.embedding.requires_grad,
    )
    return loss, Selection(*(output.detach() for output in selection))


def _tensors(problem: Problem) -> list[Tensor]:
    """Returns the inputs of the operators, with an empty tensor for each that is absent."""
    # A list of optional tensors would lose its gradients.
    absent = problem.anchors.embedding.new_empty(0, dtype=torch.float32)
    return [absent if x is None else x.contiguous() for x in problem.inputs()]


def _fake_select_negatives(
    inputs: list[Tensor], ranks: list[int], max_similarity: float
) -> tuple[Tensor, ...]:
    rows, (intra_k, _, cross_k, _) = inputs[0].shape[0], ranks
    return tuple(
        inputs[0].new_empty(rows, k, dtype=dtype)
        for k in (intra_k, cross_k)
        for dtype in (torch.int64, accumulation_dtype(inputs))
    )


def _fake_similarities(anchors: Tensor, keys: Tensor, index: Tensor) -> Tensor:
    return anchors.new_empty(index.shape, dtype=accumulation_dtype([anchors, keys]))


def _num_positives(positives: Tensor) -> int:
    return positives.shape[1] if positives.dim() == 3 else 1


def _fake_hard_negative_nce(
    inputs: list[Tensor],
    ranks: list[int],
    max_similarity: float,
    reduction: int,
    anchors_need_gradient: bool,
) -> tuple[Tensor, ...]:
    anchors, positives, *_ = leaves(inputs)
    (rows, dim), (intra_k, _, cross_k, _) = anchors.shape, ranks
    selection = _fake_select_negatives(inputs, ranks, max_similarity)
    dtype = selection[1].dtype
    loss_shape = (rows,) if REDUCTIONS[reduction] == "none" else ()
    per_row = _num_positives(positives) + intra_k + cross_k + 2
    return (
        anchors.new_empty(loss_shape, dtype=dtype),
        *selection,
        anchors.new_empty(rows if anchors_need_gradient else 0, dim, dtype=dtype),
        anchors.new_empty(rows * per_row, dtype=dtype),
    )


def _fake_hard_negative_nce_backward(
    grad_loss: Tensor,
    reduction: int,
    anchors: Tensor,
    anchor_gradient: Tensor,
    weights: Tensor,
    intra_index: Tensor,
    cross_index: Tensor,
    num_positives: int,
    first_key: list[int],
    num_keys: list[int],
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    rows, dim = anchors.shape
    return (
        torch.empty_like(anchor_gradient),
        weights.new_empty(rows, num_positives, dim),
        weights.new_empty(2),
        [weights.new_empty(count, dim) for count in num_keys],
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, _, _, reduction, _ = inputs
    _, intra_index, _, cross_index, _, anchor_gradient, weights = output
    saved = Saved(tensors[0], anchor_gradient, weights, intra_index, cross_index)
    ctx.save_for_backward(*saved)
    ctx.set_materialize_grads(False)
    ctx.leaves = look_of(leaves(tensors))
    ctx.num_positives = _num_positives(leaves(tensors)[1])
    ctx.reduction = reduction


def _backward(ctx: Any, grad_loss: Tensor | None, *_: Any) -> tuple[Any, ...]:
    need_of_inputs = ctx.needs_input_grad[0]
    grads: list[Tensor | None] = [None] * len(need_of_inputs)
    if grad_loss is not None:
        saved, needed = Saved(*ctx.saved_tensors), leaves(need_of_inputs)
        assert saved.anchors is not None and saved.anchor_gradient is not None
        if needed[0] and saved.anchor_gradient.shape[0] != saved.anchors.shape[0]:
            raise RuntimeError(
                "usucl::hard_negative_nce was called with anchors_need_gradient=False, "
                "but anchors require a gradient"
            )

        def run(wanted: Wanted) -> LossGradients:
            found: LossGradients = torch.ops.usucl.hard_negative_nce_backward(
                grad_loss.contiguous(),
                ctx.reduction,
                *saved,
                ctx.num_positives,
                [first for first, _ in wanted.keys],
                [count for _, count in wanted.keys],
            )
            return found

        grads = spread_leaves(gradients(ctx.leaves, needed, run), len(need_of_inputs))
    return grads, None, None, None, None


def _no_second_derivative(ctx: Any, *_: Any) -> None:
    raise RuntimeError(NO_SECOND_DERIVATIVE)


def _register() -> None:
    library = torch.library
    library.register_fake("usucl::select_negatives", _fake_select_negatives)
    library.register_fake("usucl::similarities", _fake_similarities)
    library.register_fake("usucl::hard_negative_nce", _fake_hard_negative_nce)
    library.register_fake("usucl::hard_negative_nce_backward", _fake_hard_negative_nce_backward)
    library.register_autograd(
        "usucl::hard_negative_nce", _backward, setup_context=_save_for_backward
    )
    library.register_autograd("usucl::hard_negative_nce_backward", _no_second_derivative)


if _native is not None:
    _register()
