"""From the embeddings of one step to the inputs of the hard-negative loss.

The loss itself is :func:`usucl_ext.hard_negative_nce`. Methods differ only in which frames are
anchors, positives and keys, and in their ids and times: the mask of the loss does the rest.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from usucl_ext import Frames, HardNegativeNCE, Selection, build_info, hard_negative_nce
from usucl_ext.reference import relation_masks

__all__ = [
    "Frames",
    "HardNegativeNCE",
    "LossInputs",
    "Selection",
    "build_info",
    "contrastive_loss",
    "dense_inputs",
    "hard_negative_nce",
    "momentum_inputs",
    "momentum_keys",
    "paper_code_inputs",
    "paper_inputs",
    "positive_similarities",
    "share_above",
    "share_above_margin",
]

# Pairs of anchors and keys that are looked at together.
_PAIRS_AT_ONCE = 1 << 22


class LossInputs(NamedTuple):
    """The arguments of :func:`hard_negative_nce` that change from step to step.

    Attributes:
        anchors: N frames.
        positives: ``[N, D]``, or ``[N, R, D]`` for several per anchor.
        negatives: key blocks, in the order in which the indices of a ``Selection`` count.
        window: ``[2]`` or ``[N, 2]`` float32, distances in time of intra-video negatives.
        positive_distance: ``[N, R]`` float32, distance in time from each anchor to each of its
            positives; None where it is not known.
    """

    anchors: Frames
    positives: Tensor
    negatives: tuple[Frames, ...]
    window: Tensor
    positive_distance: Tensor | None = None


def dense_inputs(
    first: Frames,
    second: Tensor,
    window: Tensor,
    bank: Frames | None = None,
    offset: Tensor | None = None,
) -> LossInputs:
    """Makes every frame an anchor, a positive and, where the mask allows it, a negative of others.

    All views of the N frames are anchors, each with the others as its positives; the keys are all
    views and then the bank. A frame's own views lie at distance 0 in time and are never its
    negatives.

    Args:
        first: the N frames in their first view.
        second: ``[N, D]``, the same rows in the second view, or ``[N, R, D]``, in R further views.
            Their frames may lie at a small distance from those of ``first``; the window should
            begin beyond that distance.
        window: ``[N, 2]`` float32, (lo, hi) of each frame in the unit of ``first.time``.
        bank: further keys, usually without gradient.
        offset: ``[N]`` or ``[N, R]`` float32, times of the further views from those of ``first``.
    """
    views = [first.embedding, *(second.unbind(1) if second.dim() == 3 else [second])]
    number = len(views)
    every = Frames(
        torch.cat(views),
        first.video.repeat(number),
        first.time.repeat(number),
        None if first.patient is None else first.patient.repeat(number),
    )
    others = [views[:i] + views[i + 1 :] for i in range(number)]
    positives = [other[0] if second.dim() == 2 else torch.stack(other, dim=1) for other in others]
    negatives = (every,) if bank is None else (every, bank)
    distance = None
    if offset is not None:
        times = F.pad(offset.reshape(len(offset), number - 1), (1, 0))  # of all views
        others_of = [[j for j in range(number) if j != i] for i in range(number)]
        apart = [(times[:, of] - times[:, i, None]).abs() for i, of in enumerate(others_of)]
        distance = torch.cat(apart)
    return LossInputs(every, torch.cat(positives), negatives, window.repeat(number, 1), distance)


def momentum_inputs(
    anchors: Frames,
    positives: Tensor,
    window: Tensor,
    *,
    query_negatives: bool,
    offset: Tensor | None = None,
) -> LossInputs:
    """Makes every frame an anchor whose positives come from a momentum encoder.

    The intra-video negatives are other frames of the batch as one of the two encoders sees them,
    by ``query_negatives``; the frames of other videos count in every view that is there. Source of
    the momentum encoder: He et al., CVPR 2020 (arXiv 1911.05722).

    Args:
        anchors: N frames by the query encoder, with gradient.
        positives: ``[N, D]`` or ``[N, R, D]``, further views by the momentum encoder.
        window: ``[N, 2]`` float32, (lo, hi) of each frame in the unit of ``anchors.time``.
        query_negatives: take the intra-video negatives from ``anchors``, so that they have a
            gradient; else from ``positives``.
        offset: ``[N]`` or ``[N, R]`` float32, times of the positives from those of the anchors.
    """
    keys = momentum_keys(anchors, positives, with_times=not query_negatives)
    blocks = (anchors, keys) if query_negatives else (keys,)
    distance = None if offset is None else offset.reshape(len(offset), -1).abs()
    return LossInputs(anchors, positives, blocks, window, distance)


def momentum_keys(anchors: Frames, positives: Tensor, *, with_times: bool) -> Frames:
    """Returns positives ``[N, D]`` or ``[N, R, D]`` as frames of their anchors' videos.

    They have the times of their anchors, or else none (NaN), which keeps them out of the
    intra-video negatives.
    """
    number = positives[..., 0].numel() // max(1, len(positives))
    time = anchors.time if with_times else torch.full_like(anchors.time, torch.nan)
    return Frames(
        positives.flatten(0, -2),
        anchors.video.repeat_interleave(number),
        time.repeat_interleave(number),
        None if anchors.patient is None else anchors.patient.repeat_interleave(number),
    )


def paper_inputs(
    anchors: Frames,
    positives: Tensor,
    negatives: Tensor,
    negative_time: Tensor,
    bank: Frames | None = None,
) -> LossInputs:
    """Arranges the paper's step: sampled intra-video negatives, other videos' frames and the bank.

    The sampler has already applied the curriculum's window, in whole frames and widened on short
    videos. So each anchor's window spans exactly its own negatives: all of them count, however
    they were rounded, but never the anchor's own frame (distance 0). Source: Basu et al., MICCAI
    2022 (arXiv 2207.13148), Fig. 3; there the mask by video is implied.

    Args:
        anchors: N frames.
        positives: ``[N, D]`` or ``[N, R, D]``.
        negatives: ``[N, k, D]``, frames of each anchor's own video; k may be 0.
        negative_time: ``[N, k]`` float32, in the unit of ``anchors.time``; NaN where the sampler
            found no frame, so that the row is not a negative of any anchor.
        bank: cross-video keys; frames whose time is NaN are never intra-video negatives.
    """
    n, k, dim = negatives.shape
    found = ~negative_time.isnan()
    distance = (negative_time - anchors.time[:, None]).abs()
    bounds = anchors.time.new_tensor([torch.inf, -torch.inf]).expand(n, 2)  # an empty window
    if k > 0:
        lo = distance.masked_fill(~found, torch.inf).amin(1)
        hi = distance.masked_fill(~found, -torch.inf).amax(1)
        bounds = torch.stack([lo, hi], dim=1)
    sampled = Frames(
        negatives.reshape(n * k, dim),
        anchors.video[:, None].where(found, -1).reshape(n * k),
        negative_time.reshape(n * k),
        None if anchors.patient is None else anchors.patient.repeat_interleave(k),
    )
    blocks = (sampled,) if bank is None else (sampled, bank)
    return LossInputs(anchors, positives, blocks, bounds)


def paper_code_inputs(
    anchors: Tensor, positives: Tensor, negatives: Tensor, found: Tensor | None = None
) -> LossInputs:
    """Arranges the step as the paper's released code computes it, for reproduction.

    There the set called cross-video is this batch's intra-video negatives, the anchor's own video
    included, without a mask and detached. Ids express that: in the first block all rows share
    the anchors' patient, so only each anchor's own negatives count; in the second block, with the
    same embeddings detached, no row shares a video or a patient with any anchor, so all count.

    Args:
        anchors: ``[N, D]``.
        positives: ``[N, D]`` or ``[N, R, D]``.
        negatives: ``[N, k, D]``, each anchor's intra-video negatives.
        found: ``[N, k]`` bool, false where the sampler found no frame; true by default.
    """
    n, k, dim = negatives.shape
    row = torch.arange(n, device=anchors.device)
    patient = torch.zeros_like(row)
    time = torch.zeros(n, device=anchors.device)
    there = torch.ones(n, k, dtype=torch.bool, device=row.device) if found is None else found
    keys, far = negatives.reshape(n * k, dim), time.new_ones(n * k)
    own, foreign = (
        video.where(there, -1).reshape(n * k) for video in (row[:, None], row.new_tensor(n))
    )
    intra = Frames(keys, own, far, patient.repeat(k))
    cross = Frames(keys.detach(), foreign, far, torch.full_like(foreign, -1))
    window = torch.ones(2, device=anchors.device)  # all are at distance 1
    return LossInputs(Frames(anchors, row, time, patient), positives, (intra, cross), window)


def contrastive_loss(
    inputs: LossInputs,
    *,
    label_smoothing: float = 0.0,
    positive_decay: float | None = None,
    **options: Any,
) -> tuple[Tensor, Selection]:
    r"""Returns the hard-negative loss of one step, and the negatives behind it.

    Without the first two options it is :func:`hard_negative_nce` of the inputs, to the bit.

    ``positive_decay`` weights the positives of an anchor by their distance dt in time: as
    ``exp(-|dt| / positive_decay)``, over the sum of these. A positive that is farther than the
    nearest by ``positive_decay`` has 37 % of its weight. After VanBerlo et al., 2024 (arXiv
    2403.07715), who weight pairs of near frames by their distance.

    ``label_smoothing`` softens the target. With the K + 1 logits l of :func:`hard_negative_nce`, of
    which ``l_0`` is the positive's and K the number of negatives found (the soft nearest
    neighbour counts as one), it is the cross-entropy to the target ``1 - e + e / (K + 1)`` for the
    positive and ``e / (K + 1)`` for each negative, as ``torch.nn.CrossEntropyLoss`` has it::

        loss_i = logsumexp(l) - l_0 + e (l_0 - mean(l_0, ..., l_K))
               = logsumexp(l) - l_0 + e (K s_p - s_1 - ... - s_K) / ((K + 1) temperature)

    So a negative that is already far is not pushed further away: the gradient by a negative's logit
    is 0 where its probability is ``e / (K + 1)``. Of several positives it is the same mean as that
    of the losses. The loss is then not 0 at its least. It gathers the negatives, which takes memory
    for ``N (intra_k + cross_k) D`` numbers. After HiCo, Zhang et al., ACCV 2022
    (arXiv 2210.04477), who smooth hard labels because images of other classes look alike.

    Args:
        inputs: N anchors, their positives and the key blocks of one step. Gradients go to all
            that require them, as without these options.
        label_smoothing: e, in ``[0, 1)``.
        positive_decay: in the unit of time, > 0; None for equal weights. It needs
            ``inputs.positive_distance``, and has no effect on a single positive.
        options: those of :func:`hard_negative_nce` but for the window, which is that of
            ``inputs``, the weights of the positives, and ``return_selection``.

    Returns:
        The loss as ``options["reduction"]`` has it, and the :class:`Selection`.

    Raises:
        ValueError: an option is out of its range, or ``inputs.positive_distance`` is missing.
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    weights = None
    if positive_decay is not None:
        weights = _weights_by_distance(inputs.positive_distance, positive_decay)
    loss, selection = hard_negative_nce(
        *inputs[:3],
        window=inputs.window,
        positive_weights=weights,
        return_selection=True,
        **options,
    )
    if label_smoothing == 0:
        return loss, selection
    row = _above_mean_logit(
        inputs,
        selection,
        options.get("temperature", 0.07),
        options.get("soft_nn_temperature"),
        weights,
    )
    reduction = options.get("reduction", "mean")
    if reduction != "none":
        row = row.sum() / (max(1, len(row)) if reduction == "mean" else 1)
    return loss + label_smoothing * row, selection


def _weights_by_distance(distance: Tensor | None, decay: float) -> Tensor | None:
    if not (decay > 0 and math.isfinite(decay)):
        raise ValueError(f"positive_decay must be finite and > 0, got {decay}")
    if distance is None:
        raise ValueError("inputs.positive_distance must be given for positive_decay, got None")
    if distance.shape[1] == 1:
        return None
    # Only ratios matter, and the greatest weight is 1 however far all of them are.
    return (-(distance - distance.amin(1, keepdim=True)) / decay).exp()


def _above_mean_logit(
    inputs: LossInputs,
    selection: Selection,
    temperature: float | Tensor,
    soft_nn_temperature: float | Tensor | None,
    weights: Tensor | None,
) -> Tensor:
    """Returns ``l_0 - mean(l)`` per anchor, ``[N]``, with gradients; 0 without negatives."""
    intra_taken, cross_taken = selection.intra_index >= 0, selection.cross_index >= 0
    # A row without negatives may be one that is not finite: it must not reach the keys' gradients.
    found = (intra_taken.any(1) | cross_taken.any(1))[:, None]
    query = inputs.anchors.embedding.to(selection.intra_similarity.dtype)
    query = query.masked_fill(~found, 0.0)
    positives = inputs.positives.reshape(len(query), -1, query.shape[1]).to(query.dtype)
    positive = (query[:, None] * positives.masked_fill(~found[..., None], 0.0)).sum(2)
    shares = torch.ones_like(positive) if weights is None else weights
    positive = (positive * shares).sum(1) / shares.sum(1)
    intra, cross = (
        _similarities(query, inputs.negatives, index)
        for index in (selection.intra_index, selection.cross_index)
    )
    if soft_nn_temperature is not None:
        cross, cross_taken = _soft_nearest_neighbour(cross, cross_taken, soft_nn_temperature)
    count = intra_taken.sum(1) + cross_taken.sum(1)
    excess = count * positive - intra.sum(1) - cross.sum(1)
    return excess / ((count + 1) * temperature)


def _similarities(query: Tensor, blocks: tuple[Frames, ...], index: Tensor) -> Tensor:
    """Returns ``q_i . k_j`` of pairs ``[N, k]``, 0 where the index is -1, with gradients."""
    keys = query.new_zeros(*index.shape, query.shape[1])
    first = 0
    for block in blocks:
        rows, table = len(block.video), block.embedding
        if rows > 0:
            inside = (index >= first) & (index < first + rows)
            if table.requires_grad:  # before, so that gradients are summed in float32
                table = table.to(query.dtype)
            safe = (index - first).clamp(0, rows - 1)
            # Deterministic gradients: on a CPU those of embedding, on a GPU those of indexing.
            taken = table[safe] if table.is_cuda else F.embedding(safe, table)
            # Keys that are not finite are never selected, and 0 * inf must not arise.
            keys = torch.where(inside[..., None], taken.to(query.dtype), keys)
        first += rows
    return (query[:, None] * keys).sum(2)


def _soft_nearest_neighbour(
    similarity: Tensor, taken: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Returns ``sum_j softmax(s / temperature)_j s_j`` over the taken keys, ``[N, 1]``."""
    present = taken.any(1, keepdim=True)
    logits = (similarity / temperature).masked_fill(~taken & present, -math.inf)
    return (logits.softmax(1) * similarity).sum(1, keepdim=True), present


@torch.no_grad()
def share_above_margin(inputs: LossInputs, margin: float | None) -> float:
    """Returns the share of the possible negatives that ``margin`` strikes out, over all anchors.

    A possible negative of anchor i is a key that the mask makes an intra-video or cross-video
    negative of it; struck out are those with ``s_ij > s_p + margin``, where ``s_p`` is that of the
    most similar positive. The pairs are compared part by part, so the matrix of all N x M
    similarities is never in memory.

    Args:
        inputs: N anchors, their positives and the key blocks of one step.
        margin: as in :func:`hard_negative_nce`; None for no limit.

    Returns:
        A number from 0 to 1, or NaN without a margin or without possible negatives.
    """
    if margin is None:
        return math.nan
    return share_above(inputs, positive_similarities(inputs).amax(1, keepdim=True) + margin)


@torch.no_grad()
def share_above(inputs: LossInputs, limit: Tensor) -> float:
    """Returns the share of the possible negatives of all anchors above a limit ``[N, 1]``."""
    anchors, possible, struck = inputs.anchors, 0, 0
    query = anchors.embedding.float()
    window = inputs.window.expand(len(query), 2)
    for block in inputs.negatives:
        rows = max(1, _PAIRS_AT_ONCE // max(1, len(block.video)))
        for first in range(0, len(query), rows):
            part = slice(first, first + rows)
            masks = relation_masks(anchors.take(part), block, window[part])
            allowed = masks[0] | masks[1]
            above = query[part] @ block.embedding.float().T > limit[part]
            possible += int(allowed.sum())
            struck += int((allowed & above).sum())
    return struck / possible if possible else math.nan


def positive_similarities(inputs: LossInputs) -> Tensor:
    """Returns the similarity of each anchor to each of its positives: float32 ``[N, R]``."""
    positives = inputs.positives.reshape(len(inputs.positives), -1, inputs.positives.shape[-1])
    return (inputs.anchors.embedding[:, None].float() * positives.float()).sum(2)
