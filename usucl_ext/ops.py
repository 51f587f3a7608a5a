"""The public operations: check, choose an implementation, call it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Literal, TypedDict, overload

import torch
from torch import Tensor
from typing_extensions import Required, Unpack

from . import _direct, _plain, _registrations, _repeats
from ._advice import Turns, check_lengths
from ._derivatives import refuse_tangents
from ._interception import refuse_transforms
from ._library import absent_reason
from ._problem import Problem, check_problem, leaves, with_loss
from ._types import Frames, Implementation, Reduction, Selection, Window
from ._validation import check_choice, check_pairs

IMPLEMENTATIONS = ("auto", "native", "reference")
_log = logging.getLogger("usucl_ext")
_turns = Turns()  # of the calls that do not look like an earlier one


class SelectionOptions(TypedDict, total=False):
    """The options of :func:`select_negatives`."""

    window: Required[Window]
    intra_k: Required[int]
    cross_k: Required[int]
    intra_skip: int
    cross_skip: int
    max_similarity: float | None


class LossOptions(SelectionOptions, total=False):
    """The options of :func:`hard_negative_nce`."""

    temperature: float | Tensor
    soft_nn_temperature: float | Tensor | None
    margin: float | Tensor | None
    positive_weights: Tensor | None
    reduction: Reduction


def select_negatives(
    anchors: Frames,
    negatives: Frames | Sequence[Frames],
    *,
    window: Window,
    intra_k: int,
    cross_k: int,
    intra_skip: int = 0,
    cross_skip: int = 0,
    max_similarity: float | None = None,
    impl: Implementation = "auto",
) -> Selection:
    """Returns each anchor's hardest negatives, inside its video and across videos. No gradient.

    The similarity ``s_ij = q_i . k_j`` is one fused-multiply-add chain over d = 0 .. D-1 in
    float32 (float64 if any embedding is float64) on the upcast inputs, so the selection is the
    same for every thread count, tile and device. For anchor i, key j is

    - invalid, if its video id is negative, ``s_ij`` is not finite or ``s_ij > max_similarity``;
    - an intra-video negative, if it is of the same video and ``0 < |t_i - t_j|`` and
      ``lo <= |t_i - t_j| <= hi``;
    - a cross-video negative, if it is of another video and not of the same known patient.

    The ranks ``skip .. skip + k - 1`` of each group are taken, by similarity descending and key
    index ascending. Source: Basu et al., MICCAI 2022 (arXiv 2207.13148), hard negative mining.
    ``meta`` tensors, compiled graphs and torch.func: see :func:`hard_negative_nce`.

    Args:
        anchors: N frames; D >= 1. An anchor with a negative video id selects nothing.
        negatives: one or more blocks of keys, of any mix of dtypes; never concatenated.
        window: ``(lo, hi)`` in the unit of ``time``, or a float tensor ``[2]``, ``[1, 2]`` or
            ``[N, 2]`` (one per anchor). ``lo > hi`` is an empty window. ``None`` is
            allowed with ``intra_k = 0``.
        intra_k, cross_k: number of negatives wanted from each group, >= 0; an integer of any type.
            Beyond the number of keys, at most ``2**28 / N``.
        intra_skip, cross_skip: number of hardest negatives left out of each group, >= 0.
        max_similarity: keys more similar than this are invalid (a guard against false negatives).
        impl: ``"native"``, ``"reference"`` (plain PyTorch), or ``"auto"``: native where there is
            a kernel for the device, else the reference with one logged warning.

    Returns:
        :class:`Selection` with ``[N, intra_k]`` and ``[N, cross_k]`` tensors.

    Raises:
        TypeError, ValueError: an argument has another type, dtype, shape, device or range than
            stated; the message names it.
        RuntimeError: ``impl="native"`` where there is no native kernel.
    """
    problem = check_problem(
        anchors,
        negatives,
        window=window,
        intra_k=intra_k,
        cross_k=cross_k,
        intra_skip=intra_skip,
        cross_skip=cross_skip,
        max_similarity=max_similarity,
    )
    _advise(problem)
    if not _use_native(impl, problem.anchors.embedding.device):
        return _plain.select(problem)
    inputs = problem.inputs()
    if _direct.applies(problem, inputs):
        return _direct.select_negatives(problem, inputs)
    return _registrations.select_negatives(problem)


def similarities(
    anchors: Tensor, keys: Tensor, index: Tensor, *, impl: Implementation = "auto"
) -> Tensor:
    """Returns ``s_ic = q_i . k_index[i, c]`` as in :func:`select_negatives`. No gradient.

    These are the very numbers that the selection compares and its ``Selection`` returns, so they
    put what another search proposes in the order of the selection.

    Args:
        anchors: ``[N, D]``, D >= 1, of any supported dtype.
        keys: ``[M, D]``, of any supported dtype.
        index: ``[N, C]`` int64, rows of ``keys``; there is no key outside ``0 .. M - 1``.
        impl: see :func:`select_negatives`.

    Returns:
        ``[N, C]`` float32 (float64 if an embedding is float64); -inf where there is no key, and
        not finite where the chain is not.

    Raises:
        TypeError, ValueError: an argument has another type, dtype, shape or device than stated;
            the message names it.
        RuntimeError: ``impl="native"`` where there is no native kernel.
    """
    refuse_transforms()
    anchors, keys, index = check_pairs(anchors, keys, index)
    if not _use_native(impl, anchors.device):
        return _plain.score_pairs(anchors, keys, index)
    return _registrations.similarities(anchors, keys, index)


@overload
def hard_negative_nce(
    anchors: Frames,
    positives: Tensor,
    negatives: Frames | Sequence[Frames],
    *,
    return_selection: Literal[False] = ...,
    impl: Implementation = ...,
    **options: Unpack[LossOptions],
) -> Tensor: ...


@overload
def hard_negative_nce(
    anchors: Frames,
    positives: Tensor,
    negatives: Frames | Sequence[Frames],
    *,
    return_selection: bool,
    impl: Implementation = ...,
    **options: Unpack[LossOptions],
) -> Tensor | tuple[Tensor, Selection]: ...


def hard_negative_nce(
    anchors: Frames,
    positives: Tensor,
    negatives: Frames | Sequence[Frames],
    *,
    window: Window,
    intra_k: int,
    cross_k: int,
    intra_skip: int = 0,
    cross_skip: int = 0,
    temperature: float | Tensor = 0.07,
    soft_nn_temperature: float | Tensor | None = None,
    max_similarity: float | None = None,
    margin: float | Tensor | None = None,
    positive_weights: Tensor | None = None,
    reduction: Reduction = "mean",
    return_selection: bool = False,
    impl: Implementation = "auto",
) -> Tensor | tuple[Tensor, Selection]:
    r"""Returns InfoNCE over each anchor's hardest intra-video and cross-video negatives.

    With the negatives of :func:`select_negatives`, ``s_p = q_i . p_i`` and ``s`` the selected
    similarities::

        logits = [s_p, s_intra ..., c ...] / temperature
        c      = s_cross ...                                             soft_nn_temperature None
        c      = sum_j softmax(s_cross / soft_nn_temperature)_j s_j      otherwise, one logit
        loss_i = logsumexp(logits) - logits[0]

    With R positives, ``loss_i`` is the mean of the losses with each of them alone, weighted by
    ``positive_weights``. Source: Basu et al., MICCAI 2022 (arXiv 2207.13148); the soft nearest
    neighbour is that of its cross-video negatives, not normalised again.

    Gradients flow to the anchors, positives, blocks and temperatures that require them, through
    the selected pairs only, in each input's dtype. A block that requires none is not kept: a
    bank may be overwritten between forward and backward. Results are deterministic; second
    derivatives raise RuntimeError. An anchor without valid negatives, or with a negative video
    id, has loss 0 and zero gradient; where ``q_i`` or an ``s_p`` is not finite, ``loss_i``,
    ``dq_i`` and ``dp_i`` are NaN, nothing is selected, and other rows are untouched. Where
    ``loss_i``, or a logit that counts, overflows the dtype of the loss, these three are NaN too,
    and the row adds nothing to other gradients; a negative whose logit overflows far below the
    others has no share. Autocast casts no embeddings, and similarities and loss stay float32.

    Tensors on the ``meta`` device give results on it, for their shapes. In graphs of torch.compile
    shapes and numbers may change, but a new ``max_similarity`` compiles a new graph. The
    transforms of torch.func (grad, vmap and the others) are refused: gradients come from
    ``loss.backward()`` or torch.autograd.grad.

    Args:
        anchors: N frames; D >= 1.
        positives: ``[N, D]`` or ``[N, R, D]``, any supported dtype.
        negatives: see :func:`select_negatives`, as for ``window``, ``intra_k``, ``cross_k``,
            ``intra_skip``, ``cross_skip``, ``max_similarity`` and ``impl``.
        temperature: > 0; a float or a 0-dim float tensor, which may require a gradient. The
            value of a tensor is not checked: where it is no positive, finite, normal number in the
            dtype of the loss, every ``loss_i``, ``dq_i`` and ``dp_i`` is NaN, nothing is selected
            and the other gradients are 0.
        soft_nn_temperature: > 0, likewise; ``None`` for one logit per cross-video negative.
        margin: a float, or a float tensor ``[]`` or ``[N]``; often slightly negative. A key of
            anchor i is invalid where ``s_ij > max_r s_p + margin``: its greatest similarity with
            a positive plus the margin, rounded to the dtype of the loss. It guards against false
            negatives relative to the anchor's own positives, as ``max_similarity`` does for all
            anchors alike; both may be given. No gradient flows through either limit.
        positive_weights: ``[N, R]``, >= 0 with a positive sum per anchor: ``loss_i`` is the mean
            over the positives with these weights. No gradient flows to them. On the CPU other
            values raise ValueError; elsewhere, where a check would wait for the device, and in
            compiled graphs, ``loss_i``, ``dq_i`` and ``dp_i`` are NaN for such an anchor. A
            positive of weight 0 still takes part in the limit of ``margin``.
        reduction: ``"mean"`` divides by N (0 for N = 0), ``"sum"``, or ``"none"``.
        return_selection: whether to return the :class:`Selection` too.

    Returns:
        The loss, a scalar or ``[N]``, float32 (float64 if any embedding is float64); with
        ``return_selection`` the pair ``(loss, Selection)``.

    Raises:
        TypeError, ValueError: an argument has another type, dtype, shape, device or range than
            stated; the message names it.
        RuntimeError: ``impl="native"`` where there is no native kernel, a second derivative, or a
            transform of torch.func (NotImplementedError).

    Warns:
        UserWarning: once per process and kind: embeddings are plainly not L2-normalised (a few
            rows are looked at, on the CPU only, for that would wait for a GPU), or a pair
            ``window`` has ``lo > hi``. Compiled graphs look at neither.
    """
    # The values of the weights are checked again in each call.
    seen = (
        None
        if positive_weights is not None
        else _repeats.look(
            anchors,
            negatives,
            (window, positives, positive_weights, margin, temperature, soft_nn_temperature),
            (intra_k, cross_k, intra_skip, cross_skip, max_similarity, reduction, impl),
        )
    )
    loss: Tensor
    selection: Selection | None
    if seen is not None and (known := _repeats.recall(seen)) is not None:
        if known[0].turns.is_due():
            check_lengths(zip(("anchors", "positives"), leaves(known[1])[:2], strict=True))
        loss, selection = _direct.hard_negative_nce(*known, return_selection)
        return (loss, selection) if selection is not None and return_selection else loss
    problem = with_loss(
        check_problem(
            anchors,
            negatives,
            window=window,
            intra_k=intra_k,
            cross_k=cross_k,
            intra_skip=intra_skip,
            cross_skip=cross_skip,
            max_similarity=max_similarity,
            positives=positives,
        ),
        positives,
        positive_weights=positive_weights,
        margin=margin,
        temperature=temperature,
        soft_nn_temperature=soft_nn_temperature,
        reduction=reduction,
    )
    inputs = problem.inputs()
    refuse_tangents(*leaves(inputs))
    _advise(problem)
    if not _use_native(impl, problem.anchors.embedding.device):
        loss, selection = _plain.nce(problem)
    elif _direct.applies(problem, inputs):
        plan = _direct.Plan(problem, inputs)
        if seen is not None:
            _repeats.remember(seen, plan, inputs)
        loss, selection = _direct.hard_negative_nce(plan, inputs, return_selection)
    else:
        loss, selection = _registrations.hard_negative_nce(problem)
    if not return_selection:
        return loss
    assert selection is not None
    return loss, selection


def _use_native(impl: str, device: torch.device) -> bool:
    check_choice("impl", impl, IMPLEMENTATIONS)
    if impl == "reference":
        return False
    reason = absent_reason(device)
    if reason is None:
        return True
    if impl == "native":
        raise RuntimeError(f"impl='native' has no kernel for device {device}: {reason}")
    if not torch.compiler.is_compiling():
        _warn_once(device.type, reason)
    return False


def _advise(problem: Problem) -> None:
    if not problem.intercepted and _turns.is_due():
        blocks = [(f"negatives[{i}]", b.embedding) for i, b in enumerate(problem.blocks)]
        embeddings = [("anchors", problem.anchors.embedding), ("positives", problem.positives)]
        check_lengths([*embeddings, *blocks])


@functools.cache
def _warn_once(device: str, reason: str) -> None:
    _log.warning("no native kernel for %s (%s): using the plain PyTorch reference", device, reason)
