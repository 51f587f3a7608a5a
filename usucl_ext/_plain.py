"""The mathematics of the loss and of the selection in plain PyTorch, on any device.

It forms the anchors x keys matrix and sorts it, so it is slow and large, but short enough to be
read next to the paper. The selection equals the native one wherever similarities are exact, and
up to ties within rounding elsewhere (a matmul sums in another order).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ._derivatives import first_derivative_only
from ._problem import Problem
from ._types import Frames, Selection

_INF = float("inf")
_FAR = -1000.0  # exp of this is 0 in every dtype


def relation_masks(anchors: Frames, keys: Frames, window: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns which keys are intra-video and which cross-video negatives of which anchors.

    The rule is that of csrc/core/relation.h. The embeddings are not read.

    Args:
        anchors: N frames.
        keys: M frames, or the columns ``[N, C]`` of candidates for each anchor.
        window: ``[2]``, ``[1, 2]`` or ``[N, 2]``; None for no intra-video negatives.

    Returns:
        Two bool tensors ``[N, M]`` or ``[N, C]``, intra-video and cross-video.
    """
    video, time = anchors.video[:, None], anchors.time[:, None]
    filled = (video >= 0) & (keys.video >= 0)
    same_video = video == keys.video
    cross = filled & ~same_video
    if anchors.patient is not None and keys.patient is not None:
        cross &= (anchors.patient[:, None] != keys.patient) | (keys.patient < 0)
    if window is None:
        return torch.zeros_like(cross), cross
    distance = (time - keys.time).abs()
    lo, hi = window[..., :1], window[..., 1:]
    inside = (distance > 0) & (lo <= distance) & (distance <= hi)
    return filled & same_video & inside, cross


@torch.no_grad()
def select(
    problem: Problem, excluded: Tensor | None = None, limit: Tensor | None = None
) -> Selection:
    """Returns each anchor's hardest valid negatives, by (similarity descending, index ascending).

    Args:
        problem: N anchors against M keys in all.
        excluded: ``[N]`` bool, anchors for which nothing is selected.
        limit: ``[N]``, the greatest similarity that a key of the anchor may have; NaN for none.
    """
    similarity = _similarity(problem)  # [N, M]
    valid = similarity.isfinite() & ~(similarity > problem.max_similarity)
    if limit is not None:
        valid &= ~(similarity > limit[:, None])
    if excluded is not None:
        valid &= ~excluded[:, None]
    intra, cross = relation_masks(problem.anchors, _joined(problem.blocks), problem.window)
    intra, cross = intra & valid, cross & valid
    return Selection(
        *_hardest(similarity, intra, problem.intra_k, problem.intra_skip),
        *_hardest(similarity, cross, problem.cross_k, problem.cross_skip),
    )


def _joined(blocks: Sequence[Frames]) -> Frames:
    """Returns the columns of all blocks, concatenated, but only the first block's embeddings."""
    patients = [block.patient for block in blocks if block.patient is not None]
    return Frames(
        blocks[0].embedding,
        torch.cat([block.video for block in blocks]),
        torch.cat([block.time for block in blocks]),
        torch.cat(patients) if patients else None,
    )


def _similarity(problem: Problem) -> Tensor:
    embedding = problem.anchors.embedding
    with _without_autocast(embedding):
        query = embedding.to(problem.accumulate)
        keys = [block.embedding.to(problem.accumulate) for block in problem.blocks]
        return torch.cat([query @ key.T for key in keys], dim=1) + 0.0  # -0 becomes +0


def _hardest(similarity: Tensor, group: Tensor, k: int, skip: int) -> tuple[Tensor, Tensor]:
    """Returns ranks ``skip .. skip + k - 1`` of a group: index and similarity, both ``[N, k]``."""
    ranked, order = similarity.masked_fill(~group, -_INF).sort(dim=1, descending=True, stable=True)
    ranked, order = ranked[:, skip : skip + k], order[:, skip : skip + k]
    order = order.masked_fill(ranked == -_INF, -1)
    missing = (0, k - order.shape[1])
    return F.pad(order, missing, value=-1), F.pad(ranked, missing, value=-_INF)


@torch.no_grad()
def score_pairs(anchors: Tensor, keys: Tensor, index: Tensor) -> Tensor:
    """Returns ``q_i . k_index[i, c]`` of checked pairs ``[N, C]``, -inf where there is no key."""
    double = torch.float64 in (anchors.dtype, keys.dtype)
    dtype = torch.float64 if double else torch.float32
    there = (index >= 0) & (index < keys.shape[0])
    scores = torch.full(index.shape, -_INF, dtype=dtype, device=anchors.device)
    if scores.is_meta:
        return scores
    row, column = there.nonzero(as_tuple=True)
    pairs = anchors[row].to(dtype) * keys[index[row, column]].to(dtype)
    scores[row, column] = pairs.sum(1)
    return scores


def nce(problem: Problem) -> tuple[Tensor, Selection]:
    """Returns the loss of a checked call, and the selection behind it.

    logits = [s_p, s_intra ..., c ...] / temperature;  loss_i = logsumexp(logits) - logits[0],
    of which the mean over the R positives is taken.
    """
    embedding, soft_nn_temperature = problem.anchors.embedding, problem.soft_nn_temperature
    assert problem.positives is not None and problem.temperature is not None
    with _without_autocast(embedding):
        query = _upcast(embedding, problem)  # [N, D]
        shape = (embedding.shape[0], problem.num_positives, embedding.shape[1])
        positives = _upcast(problem.positives, problem).reshape(shape)  # [N, R, D]
        positive = (query[:, None] * positives).sum(-1)  # [N, R]
        broken = ~(positive.isfinite().all(1) & query.isfinite().all(1))  # [N]
        share = None if problem.positive_weights is None else _shares(problem.positive_weights)
        if share is not None:
            broken |= share.isnan().any(1)
            share = share.masked_fill(broken[:, None], 0.0)
        temperature, invalid = _valid_temperature(problem.temperature)
        least = temperature
        broken |= invalid
        if soft_nn_temperature is not None:
            soft_nn_temperature, invalid = _valid_temperature(soft_nn_temperature)
            broken |= invalid
        limit = None if problem.margin is None else positive.detach().amax(1) + problem.margin
        selection = select(problem, broken, limit)

        whole = query.masked_fill(broken[:, None], 0.0)
        positive = positive.masked_fill(broken[:, None], 0.0)
        intra = _selected_similarity(problem, whole, selection.intra_index)
        cross = _selected_similarity(problem, whole, selection.cross_index)
        intra_taken, cross_taken = selection.intra_index >= 0, selection.cross_index >= 0
        if soft_nn_temperature is not None:
            least = torch.minimum(temperature, soft_nn_temperature)
            cross, cross_taken = _soft_nearest_neighbour(cross, cross_taken, soft_nn_temperature)
        row, overflows = _info_nce(
            positive,
            torch.cat([intra, cross], dim=1),
            torch.cat([intra_taken, cross_taken], dim=1),
            temperature,
            least,
            share,
        )
        broken = broken | overflows

        # A broken row is NaN, and so are its gradients; the other rows never see it.
        touched = torch.cat([query[:, None], positives], dim=1)
        touched = touched.masked_fill(~broken[:, None, None], 0.0).sum((1, 2)) * float("nan")
        row = torch.where(broken, touched, row)

        if problem.reduction == "none":
            return row, selection
        total = row.sum()
        return total / max(row.shape[0], 1) if problem.reduction == "mean" else total, selection


def _shares(weights: Tensor) -> Tensor:
    """Returns weights ``[N, R]`` over their sum per anchor, NaN where one is < 0 or none is > 0."""
    total = weights.sum(1, keepdim=True)
    valid = (weights >= 0).all(1, keepdim=True) & (total > 0) & total.isfinite()
    return (weights / total).masked_fill(~valid, float("nan"))


def _valid_temperature(temperature: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the temperature, 1 if it is no positive normal number, and whether it is none."""
    limits = torch.finfo(temperature.dtype)
    valid = (temperature >= limits.tiny) & (temperature <= limits.max)
    return torch.where(valid, temperature, torch.ones_like(temperature)), ~valid


def _info_nce(
    positive: Tensor,
    negative: Tensor,
    taken: Tensor,
    temperature: Tensor,
    least: Tensor,
    share: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Returns ``[N]`` ``logsumexp(logits) - logits[0]``, the mean over the positives ``[N, R]``.

    It is zero where no negative ``[N, L]`` is taken, and is computed as
    ``log(1 + sum_j exp((s_j - s_p) / temperature))``, which loses no digits where it is small.
    The second result ``[N]`` tells where it overflows, or a logit that counts over ``least``, the
    smaller one of the temperatures; the first is then without meaning.
    """
    difference = negative[:, None] - positive[:, :, None]  # [N, R, L]
    with torch.no_grad():
        excess = (difference / temperature).masked_fill(~taken[:, None], -_INF)
        top = F.pad(excess, (1, 0)).amax(2, keepdim=True)  # the positive's own is 0
        # Negatives of probability 0 are left out: their logits may be infinite.
        counted = excess - top > _FAR
        present = counted.any(2)
        negative_top = F.pad(negative.masked_fill(~taken, -_INF), (1, 0), value=-_INF).amax(1)
        finite = (torch.maximum(positive, negative_top[:, None]) / least).isfinite()
        overflows = (top[..., 0] == _INF) | (present & ~finite)
        if share is not None:
            overflows &= share > 0
    excess = difference.masked_fill(~counted, 0.0) / temperature
    # Rows without negatives stay finite until the end.
    total = excess.masked_fill(~counted & present[..., None], -_INF).logsumexp(2)
    loss = torch.logaddexp(total, torch.zeros_like(total)).masked_fill(~present, 0.0)  # [N, R]
    mean = loss.mean(1) if share is None else (loss * share).sum(1)
    return mean, overflows.any(1)


def _without_autocast(like: Tensor) -> torch.autocast:
    # Autocast does not know the meta device, where there is nothing to cast.
    return torch.autocast("cpu" if like.is_meta else like.device.type, enabled=False)


def _upcast(embedding: Tensor, problem: Problem) -> Tensor:
    return first_derivative_only(embedding.to(problem.accumulate))


def _selected_similarity(problem: Problem, query: Tensor, index: Tensor) -> Tensor:
    """Returns ``q_i . k_j`` of the selected pairs ``[N, k]``, zero where the index is -1."""
    keys = query.new_zeros(*index.shape, query.shape[1])  # [N, k, D]
    first = 0
    for block in problem.blocks:
        rows = block.embedding.shape[0]
        inside = (index >= first) & (index < first + rows)
        # The upcast comes first, so that gradients are summed in float32.
        table = _upcast(block.embedding, problem)
        if rows > 0:
            # Deterministic gradients: on a CPU those of embedding, on a GPU those of indexing.
            safe = (index - first).clamp(0, rows - 1)
            looked_up = table[safe] if table.is_cuda else F.embedding(safe, table)
            keys = torch.where(inside[..., None], looked_up, keys)
        else:
            keys = keys + table.sum()  # adds zero, but gives the empty block a gradient
        first += rows
    return (query[:, None] * keys).sum(-1)


def _soft_nearest_neighbour(
    similarity: Tensor, taken: Tensor, temperature: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns ``sum_j softmax(s / temperature)_j s_j`` over the taken keys, ``[N, 1]``."""
    present = taken.any(1, keepdim=True)
    with torch.no_grad():
        top = F.pad(similarity.masked_fill(~taken, -_INF), (1, 0), value=-_INF).amax(1, True)
        counted = taken & ((similarity - top) / temperature > _FAR)  # the others have weight 0
        # The greatest logit is 0 where it, or its derivative by the temperature, overflows.
        shift = top.masked_fill((top / temperature / temperature).isfinite() | ~present, 0.0)
    similarity = similarity.masked_fill(~counted, 0.0)
    # Rows without keys get equal weights of zero similarities instead of softmax's 0 / 0.
    logits = (similarity - shift).masked_fill(~counted, 0.0) / temperature
    weight = logits.masked_fill(~counted & present, -_INF).softmax(1)
    return (weight * similarity).sum(1, keepdim=True), present
