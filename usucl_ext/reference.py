"""The loss and the selection in plain PyTorch: any device, importable without the binaries.

It forms the anchors x keys matrix and sorts it, so it is slow and large, but short enough to be
read beside the paper. The selection equals the native one wherever similarities are exact, and
up to ties within rounding elsewhere (a matmul adds in another order).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ._derivatives import first_derivative_only
from ._types import Frames, Selection
from ._validation import (
    REDUCTIONS,
    Problem,
    Window,
    check_choice,
    check_pairs,
    check_positives,
    check_problem,
    check_temperature,
    stacked,
)

_INF = float("inf")


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
) -> Selection:
    """As :func:`usucl_ext.select_negatives`, in plain PyTorch."""
    return select(
        check_problem(
            anchors,
            negatives,
            window=window,
            intra_k=intra_k,
            cross_k=cross_k,
            intra_skip=intra_skip,
            cross_skip=cross_skip,
            max_similarity=max_similarity,
        )
    )


def similarities(anchors: Tensor, keys: Tensor, index: Tensor) -> Tensor:
    """As :func:`usucl_ext.similarities`, in plain PyTorch."""
    return score_pairs(*check_pairs(anchors, keys, index))


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
    reduction: str = "mean",
    return_selection: bool = False,
) -> Tensor | tuple[Tensor, Selection]:
    """As :func:`usucl_ext.hard_negative_nce`, in plain PyTorch."""
    problem = check_problem(
        anchors,
        negatives,
        window=window,
        intra_k=intra_k,
        cross_k=cross_k,
        intra_skip=intra_skip,
        cross_skip=cross_skip,
        max_similarity=max_similarity,
        positives=positives,
    )
    soft = soft_nn_temperature
    loss, selection = nce(
        problem,
        stacked(check_positives(positives, problem)),
        check_temperature("temperature", temperature, problem),
        None if soft is None else check_temperature("soft_nn_temperature", soft, problem),
        check_choice("reduction", reduction, REDUCTIONS),
    )
    return (loss, selection) if return_selection else loss


@torch.no_grad()
def select(problem: Problem, excluded: Tensor | None = None) -> Selection:
    """The hardest valid negatives of each anchor, by (similarity descending, index ascending).

    Args:
        problem: N anchors against M keys in all.
        excluded: ``[N]`` bool, anchors for which nothing is selected.
    """
    anchors, blocks = problem.anchors, problem.blocks
    video = torch.cat([block.video for block in blocks])[None]  # [1, M]
    time = torch.cat([block.time for block in blocks])[None]  # [1, M]
    similarity = _similarity(problem)  # [N, M]

    valid = (video >= 0) & (anchors.video >= 0)[:, None] & similarity.isfinite()
    if problem.max_similarity is not None:
        valid &= ~(similarity > problem.max_similarity)
    if excluded is not None:
        valid &= ~excluded[:, None]

    same_video = anchors.video[:, None] == video
    cross = valid & ~same_video
    if anchors.patient is not None:
        patient = torch.cat([b.patient for b in blocks if b.patient is not None])[None]
        cross &= (anchors.patient[:, None] != patient) | (patient < 0)
    intra = valid & same_video
    if problem.window is not None:
        distance = (anchors.time[:, None] - time).abs()
        lo, hi = problem.window[..., :1], problem.window[..., 1:]
        intra &= (distance > 0) & (lo <= distance) & (distance <= hi)
    return Selection(
        *_hardest(similarity, intra, problem.intra_k, problem.intra_skip),
        *_hardest(similarity, cross, problem.cross_k, problem.cross_skip),
    )


def _similarity(problem: Problem) -> Tensor:
    embedding = problem.anchors.embedding
    with torch.autocast(embedding.device.type, enabled=False):
        query = embedding.to(problem.accumulate)
        keys = [block.embedding.to(problem.accumulate) for block in problem.blocks]
        return torch.cat([query @ key.T for key in keys], dim=1) + 0.0  # -0 becomes +0


def _hardest(similarity: Tensor, group: Tensor, k: int, skip: int) -> tuple[Tensor, Tensor]:
    """Ranks ``skip .. skip + k - 1`` of a group: index ``[N, k]`` and similarity ``[N, k]``."""
    ranked, order = similarity.masked_fill(~group, -_INF).sort(dim=1, descending=True, stable=True)
    ranked, order = ranked[:, skip : skip + k], order[:, skip : skip + k]
    order = order.masked_fill(ranked == -_INF, -1)
    missing = (0, k - order.shape[1])
    return F.pad(order, missing, value=-1), F.pad(ranked, missing, value=-_INF)


@torch.no_grad()
def score_pairs(anchors: Tensor, keys: Tensor, index: Tensor) -> Tensor:
    """q_i . k_index[i, c] of checked pairs ``[N, C]``, -inf where there is no such key."""
    double = torch.float64 in (anchors.dtype, keys.dtype)
    dtype = torch.float64 if double else torch.float32
    there = (index >= 0) & (index < keys.shape[0])
    scores = torch.full(index.shape, -_INF, dtype=dtype, device=anchors.device)
    row, column = there.nonzero(as_tuple=True)
    pairs = anchors[row].to(dtype) * keys[index[row, column]].to(dtype)
    scores[row, column] = pairs.sum(1)
    return scores


def nce(
    problem: Problem,
    positives: Tensor,
    temperature: Tensor,
    soft_nn_temperature: Tensor | None,
    reduction: str,
) -> tuple[Tensor, Selection]:
    """Loss of anchor i, averaged over its R positives, and the selection behind it.

    logits = [s_p, s_intra ..., c ...] / temperature;  loss_i = logsumexp(logits) - logits[0]
    """
    with torch.autocast(positives.device.type, enabled=False):
        query = _upcast(problem.anchors.embedding, problem)  # [N, D]
        positives = _upcast(positives, problem)  # [N, R, D]
        positive = (query[:, None] * positives).sum(-1)  # [N, R]
        broken = ~(positive.isfinite().all(1) & query.isfinite().all(1))  # [N]
        selection = select(problem, excluded=broken)

        whole = query.masked_fill(broken[:, None], 0.0)
        positive = positive.masked_fill(broken[:, None], 0.0)
        intra = _selected_similarity(problem, whole, selection.intra_index)
        cross = _selected_similarity(problem, whole, selection.cross_index)
        intra_taken, cross_taken = selection.intra_index >= 0, selection.cross_index >= 0
        if soft_nn_temperature is not None:
            cross, cross_taken = _soft_nearest_neighbour(cross, cross_taken, soft_nn_temperature)
        row = _info_nce(
            positive,
            torch.cat([intra, cross], dim=1),
            torch.cat([intra_taken, cross_taken], dim=1),
            temperature,
        )

        # A broken row is NaN, and so are its gradients; the other rows never see it.
        touched = torch.cat([query[:, None], positives], dim=1)
        touched = touched.masked_fill(~broken[:, None, None], 0.0).sum((1, 2)) * float("nan")
        row = torch.where(broken, touched, row)

        if reduction == "none":
            return row, selection
        total = row.sum()
        return total / max(row.shape[0], 1) if reduction == "mean" else total, selection


def _info_nce(positive: Tensor, negative: Tensor, taken: Tensor, temperature: Tensor) -> Tensor:
    """logsumexp(logits) - logits[0], averaged over the positives ``[N, R]``; zero where no
    negative ``[N, L]`` is taken.

    As log(1 + sum_j exp((s_j - s_p) / temperature)): no digits are lost where that is small.
    """
    present = taken.any(1)
    excess = (negative[:, None] - positive[:, :, None]) / temperature  # [N, R, L]
    counted = taken | ~present[:, None]  # rows without negatives stay finite until the end
    total = excess.masked_fill(~counted[:, None], -_INF).logsumexp(2)
    return torch.logaddexp(total, torch.zeros_like(total)).mean(1).masked_fill(~present, 0.0)


def _upcast(embedding: Tensor, problem: Problem) -> Tensor:
    return first_derivative_only(embedding.to(problem.accumulate))


def _selected_similarity(problem: Problem, query: Tensor, index: Tensor) -> Tensor:
    """q_i . k_j of the selected pairs ``[N, k]``, zero where the index is -1."""
    keys = query.new_zeros(*index.shape, query.shape[1])  # [N, k, D]
    first = 0
    for block in problem.blocks:
        rows = block.embedding.shape[0]
        inside = (index >= first) & (index < first + rows)
        # Upcast first, so that gradients are summed in float32; and looked up as in an embedding
        # table, whose gradient is deterministic.
        table = _upcast(block.embedding, problem)
        if rows > 0:
            # On a GPU the gradient of an embedding table is not deterministic, that of indexing is.
            safe = (index - first).clamp(0, rows - 1)
            looked_up = table[safe] if table.is_cuda else F.embedding(safe, table)
            keys = torch.where(inside[..., None], looked_up, keys)
        else:
            keys = keys + table.sum()  # nothing, but its gradient is there
        first += rows
    return (query[:, None] * keys).sum(-1)


def _soft_nearest_neighbour(
    similarity: Tensor, taken: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor]:
    """c = sum_j softmax(s / temperature)_j s_j over the taken keys: one logit, ``[N, 1]``."""
    present = taken.any(1, keepdim=True)
    # Rows without keys get equal weights of zero similarities instead of softmax's 0 / 0.
    weight = (similarity / temperature).masked_fill(~taken & present, -_INF).softmax(1)
    return (weight * similarity).sum(1, keepdim=True), present
