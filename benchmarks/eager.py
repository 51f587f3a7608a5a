"""The loss as a user would write it in PyTorch: a matmul, two masks, two topk."""

from __future__ import annotations

import torch
from torch import Tensor

from usucl_ext import Frames


def hard_negative_nce(
    anchors: Frames,
    positives: Tensor,
    keys: Frames,
    *,
    window: tuple[float, float],
    intra_k: int,
    cross_k: int,
    temperature: float,
) -> Tensor:
    """Returns the mean loss; ties are broken in any order.

    Args:
        anchors: N frames.
        positives: ``[N, D]``.
        keys: M frames.
        window, intra_k, cross_k, temperature: as for :func:`usucl_ext.hard_negative_nce`.
    """
    similarity = anchors.embedding @ keys.embedding.T  # [N, M]
    same_video = anchors.video[:, None] == keys.video
    distance = (anchors.time[:, None] - keys.time).abs()
    lo, hi = window
    inside = same_video & (distance > 0) & (distance >= lo) & (distance <= hi)
    intra = similarity.masked_fill(~inside, -torch.inf).topk(min(intra_k, len(keys.time)), dim=1)
    cross = similarity.masked_fill(same_video, -torch.inf).topk(min(cross_k, len(keys.time)), dim=1)
    positive = (anchors.embedding * positives).sum(1, keepdim=True)
    logits = torch.cat([positive, intra.values, cross.values], dim=1) / temperature
    first = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return torch.nn.functional.cross_entropy(logits, first)


def hard_negative_nce_in_chunks(
    anchors: Frames,
    positives: Tensor,
    keys: Frames,
    *,
    window: tuple[float, float],
    intra_k: int,
    cross_k: int,
    temperature: float,
    chunk: int = 128,
) -> Tensor:
    """Returns the same loss, ``chunk`` anchors at a time, which takes less memory."""
    rows = len(positives)
    total = anchors.embedding.new_zeros(())
    for first in range(0, rows, chunk):
        part = slice(first, min(first + chunk, rows))
        loss = hard_negative_nce(
            Frames(anchors.embedding[part], anchors.video[part], anchors.time[part]),
            positives[part],
            keys,
            window=window,
            intra_k=intra_k,
            cross_k=cross_k,
            temperature=temperature,
        )
        total = total + loss * ((part.stop - part.start) / rows)
    return total
