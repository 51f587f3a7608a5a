"""From the embeddings of one step to the inputs of the hard-negative loss.

The loss itself is :func:`usucl_ext.hard_negative_nce`. Methods differ only in which frames are
anchors, positives and keys, and in their ids and times: the mask of the loss does the rest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from usucl_ext import Frames, HardNegativeNCE, Selection, build_info, hard_negative_nce
from usucl_ext.reference import relation_masks

__all__ = [
    "Frames",
    "HardNegativeNCE",
    "LossInputs",
    "Selection",
    "build_info",
    "dense_inputs",
    "hard_negative_nce",
    "paper_code_inputs",
    "paper_inputs",
    "positive_similarities",
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
    """

    anchors: Frames
    positives: Tensor
    negatives: tuple[Frames, ...]
    window: Tensor


def dense_inputs(
    first: Frames, second: Tensor, window: Tensor, bank: Frames | None = None
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
    return LossInputs(every, torch.cat(positives), negatives, window.repeat(number, 1))


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


@torch.no_grad()
def share_above_margin(inputs: LossInputs, margin: float | None) -> float:
    """Returns the share of the possible negatives that ``margin`` strikes out, over all anchors.

    A possible negative of anchor i is a key that the mask makes an intra-video or cross-video
    negative of it; struck out are those with ``s_ij > s_p + margin``, where ``s_p`` is that of the
    most similar positive. The pairs are compared part
    by part, so the matrix of all N x M similarities is never in memory.

    Args:
        inputs: N anchors, their positives and the key blocks of one step.
        margin: as in :func:`hard_negative_nce`; None for no limit.

    Returns:
        A number from 0 to 1, or NaN without a margin or without possible negatives.
    """
    if margin is None:
        return math.nan
    anchors, possible, struck = inputs.anchors, 0, 0
    query = anchors.embedding.float()
    limit = positive_similarities(inputs).amax(1, keepdim=True) + margin
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
