"""What PyTorch must know of the native operators beside their kernels.

Shapes for tracing (fake kernels), gradients, and the calls themselves. Autocast needs no rule of
its own: the operators take every mix of dtypes and accumulate in float32, so nothing is cast,
least of all times, windows and temperatures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._derivatives import NO_SECOND_DERIVATIVE
from ._library import _native
from ._types import Selection
from ._validation import REDUCTIONS, Problem


def select_negatives(problem: Problem) -> Selection:
    """The native selection of a checked problem."""
    with torch.no_grad():
        return Selection(*torch.ops.usucl.select_negatives(*_selection_arguments(problem)))


def similarities(anchors: Tensor, keys: Tensor, index: Tensor) -> Tensor:
    """The native similarities of checked pairs."""
    with torch.no_grad():
        scores = torch.ops.usucl.similarities(
            anchors.contiguous(), keys.contiguous(), index.contiguous()
        )
    assert isinstance(scores, Tensor)
    return scores


def hard_negative_nce(
    problem: Problem,
    positives: Tensor,
    temperature: Tensor,
    soft_nn_temperature: Tensor | None,
    reduction: str,
) -> tuple[Tensor, Selection]:
    """The native loss and selection of a checked problem."""
    anchors = problem.anchors.embedding
    outputs = torch.ops.usucl.hard_negative_nce(
        *_selection_arguments(problem),
        positives.contiguous(),
        temperature,
        soft_nn_temperature,
        REDUCTIONS.index(reduction),
        torch.is_grad_enabled() and anchors.requires_grad,
    )
    return outputs[0], Selection(*(output.detach() for output in outputs[1:5]))


def _selection_arguments(problem: Problem) -> tuple[Any, ...]:
    anchors, blocks = problem.anchors, problem.blocks
    return (
        anchors.embedding.contiguous(),
        anchors.video.contiguous(),
        anchors.time.contiguous(),
        None if anchors.patient is None else anchors.patient.contiguous(),
        [block.embedding.contiguous() for block in blocks],
        [block.video.contiguous() for block in blocks],
        [block.time.contiguous() for block in blocks],
        [block.patient.contiguous() for block in blocks if block.patient is not None],
        None if problem.window is None else problem.window.contiguous(),
        problem.intra_k,
        problem.cross_k,
        problem.intra_skip,
        problem.cross_skip,
        problem.max_similarity,
    )


def _accumulation_dtype(tensors: list[Tensor]) -> torch.dtype:
    double = any(tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if double else torch.float32


def _fake_selection(
    anchors: Tensor, keys: list[Tensor], intra_k: int, cross_k: int, *others: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = anchors.shape[0]
    dtype = _accumulation_dtype([anchors, *keys, *others])
    return (
        anchors.new_empty(rows, intra_k, dtype=torch.int64),
        anchors.new_empty(rows, intra_k, dtype=dtype),
        anchors.new_empty(rows, cross_k, dtype=torch.int64),
        anchors.new_empty(rows, cross_k, dtype=dtype),
    )


def _fake_select_negatives(
    anchors: Tensor,
    video: Tensor,
    time: Tensor,
    patient: Tensor | None,
    keys: list[Tensor],
    key_video: list[Tensor],
    key_time: list[Tensor],
    key_patient: list[Tensor],
    window: Tensor | None,
    intra_k: int,
    cross_k: int,
    intra_skip: int,
    cross_skip: int,
    max_similarity: float | None,
) -> tuple[Tensor, ...]:
    return _fake_selection(anchors, keys, intra_k, cross_k)


def _fake_similarities(anchors: Tensor, keys: Tensor, index: Tensor) -> Tensor:
    return anchors.new_empty(index.shape, dtype=_accumulation_dtype([anchors, keys]))


def _fake_hard_negative_nce(
    anchors: Tensor,
    video: Tensor,
    time: Tensor,
    patient: Tensor | None,
    keys: list[Tensor],
    key_video: list[Tensor],
    key_time: list[Tensor],
    key_patient: list[Tensor],
    window: Tensor | None,
    intra_k: int,
    cross_k: int,
    intra_skip: int,
    cross_skip: int,
    max_similarity: float | None,
    positives: Tensor,
    temperature: Tensor,
    soft_nn_temperature: Tensor | None,
    reduction: int,
    anchors_need_gradient: bool,
) -> tuple[Tensor, ...]:
    selection = _fake_selection(anchors, keys, intra_k, cross_k, positives)
    rows, dim = anchors.shape
    dtype = selection[1].dtype
    loss_shape = (rows,) if REDUCTIONS[reduction] == "none" else ()
    return (
        anchors.new_empty(loss_shape, dtype=dtype),
        *selection,
        anchors.new_empty(rows if anchors_need_gradient else 0, dim, dtype=dtype),
        anchors.new_empty(rows, positives.shape[1], dtype=dtype),
        anchors.new_empty(rows, intra_k, dtype=dtype),
        anchors.new_empty(rows, cross_k, dtype=dtype),
        anchors.new_empty(rows, 2, dtype=dtype),
    )


def _fake_hard_negative_nce_backward(
    grad_loss: Tensor,
    reduction: int,
    anchors: Tensor,
    anchor_gradient: Tensor,
    positive_weight: Tensor,
    intra_index: Tensor,
    intra_weight: Tensor,
    cross_index: Tensor,
    cross_weight: Tensor,
    temperature_gradient: Tensor,
    first_key: list[int],
    num_keys: list[int],
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    rows, dim = anchors.shape
    dtype = grad_loss.dtype
    return (
        torch.empty_like(anchor_gradient),
        anchors.new_empty(rows, positive_weight.shape[1], dim, dtype=dtype),
        anchors.new_empty(2, dtype=dtype),
        [anchors.new_empty(count, dim, dtype=dtype) for count in num_keys],
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    anchors, keys = inputs[0], inputs[4]
    positives, _, soft, reduction = inputs[14:18]
    _, intra_index, _, cross_index, _, *gradients = output
    ctx.save_for_backward(anchors, intra_index, cross_index, *gradients)
    ctx.set_materialize_grads(False)
    # Of the keys only the shapes are kept: a bank may be overwritten before backward.
    ctx.rows = [key.shape[0] for key in keys]
    ctx.list_lengths = [len(tensors) for tensors in inputs[5:8]]
    ctx.key_dtypes = [key.dtype for key in keys]
    ctx.reduction = reduction
    ctx.dtypes = (anchors.dtype, positives.dtype)
    ctx.has_soft_nn = soft is not None


def _backward(ctx: Any, grad_loss: Tensor | None, *_: Any) -> tuple[Any, ...]:
    needs = ctx.needs_input_grad
    grad_keys: list[Tensor | None] = [None] * len(ctx.rows)
    no_grad_lists: list[list[None]] = [[None] * n for n in ctx.list_lengths]
    if grad_loss is None:
        return (*(None,) * 4, grad_keys, *no_grad_lists, *(None,) * 11)
    anchors, intra_index, cross_index, *gradients = ctx.saved_tensors
    anchor_gradient, positive_weight, intra_weight, cross_weight, temperature_gradient = gradients
    if needs[0] and anchor_gradient.shape[0] != anchors.shape[0]:
        raise RuntimeError(
            "usucl::hard_negative_nce was called with anchors_need_gradient=False, "
            "but anchors require a gradient"
        )
    wanted = [i for i, need in enumerate(needs[4]) if need] if needs[4] else []
    first = [sum(ctx.rows[:i]) for i in wanted]
    grad_anchors, grad_positives, grad_temperatures, grad_wanted = (
        torch.ops.usucl.hard_negative_nce_backward(
            grad_loss.contiguous(),
            ctx.reduction,
            anchors,
            anchor_gradient,
            positive_weight,
            intra_index,
            intra_weight,
            cross_index,
            cross_weight,
            temperature_gradient,
            first,
            [ctx.rows[i] for i in wanted],
        )
    )
    for i, grad in zip(wanted, grad_wanted, strict=True):
        grad_keys[i] = grad.to(ctx.key_dtypes[i])
    return (
        grad_anchors.to(ctx.dtypes[0]) if needs[0] else None,
        *(None,) * 3,
        grad_keys,
        *no_grad_lists,
        *(None,) * 6,
        grad_positives.to(ctx.dtypes[1]) if needs[14] else None,
        grad_temperatures[0] if needs[15] else None,
        grad_temperatures[1] if ctx.has_soft_nn and needs[16] else None,
        *(None,) * 2,
    )


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
