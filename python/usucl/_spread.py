"""Measures of how embeddings fill the sphere, which training watches and evaluation reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def uniformity(embedding: Tensor, video: Tensor | None = None) -> float:
    """Returns ``log mean exp(-2 |a - b|^2)`` over pairs of rows, of different videos if given.

    It is 0 for a collapsed encoder, lower for a larger spread, about -4 for independent uniform
    directions, and NaN without a pair. Leaving out the pairs of one video makes batches with few
    and with many frames per video comparable. Source: Wang and Isola, ICML 2020.

    Args:
        embedding: ``[N, D]`` with unit rows.
        video: ``[N]``.
    """
    embedding = embedding.double()
    if video is None:
        distance = torch.pdist(embedding)
    else:
        distance = torch.cdist(embedding, embedding)[video[:, None] != video]
    return float(distance.square().mul(-2).exp().mean().log())


def effective_rank(embedding: Tensor) -> float:
    """Returns ``exp(-sum p log p)`` of ``p = s / sum s``, s the singular values of ``[N, D]``.

    It is 1 when all rows lie on one line and min(N, D) when the singular values are equal. Source:
    Roy and Vetterli, EUSIPCO 2007.
    """
    singular = torch.linalg.svdvals(embedding.cpu().double())
    share = singular / singular.sum()
    return float(torch.special.entr(share).sum().exp())


MEASURES: Mapping[str, Callable[[Tensor], float]] = {
    "uniformity": uniformity,
    "effective_rank": effective_rank,
}
"""The measures that the evaluation takes of the embeddings ``[N, D]`` of each encoder."""
