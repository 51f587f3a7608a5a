"""CycleContrast: the nearest frames of other videos lead back to the video of the query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from usucl._ranges import check_range
from usucl.comparison.objectives.moco import MoCoOptions, QueuedObjective, info_nce, own_video
from usucl.comparison.objectives.objective import pairs_of_videos
from usucl.data import FrameBatch, FrameSampler


@dataclass(frozen=True)
class CycleContrastOptions(MoCoOptions):
    """Options of CycleContrast, with the defaults of its authors' script.

    Attributes:
        weight: of the loss of the cycle; that of the video has 1.
        share: share of the queue in which neighbours are sought, in (0, 1]; the rest are the
            negatives of the way back. The authors have 16,384 of 81,920.
    """

    temperature: float = 0.07
    queue: int = 81920
    weight: float = 0.1
    share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("weight", self.weight, 0)
        check_range("share", self.share, 0, 1, above=True)


class CycleContrast(QueuedObjective[CycleContrastOptions]):
    """Wu and Wang, ICCV 2021 (arXiv 2105.06463), by their code, which names it CycleContrast.

    It is a method for encoders of images; Kong et al., NeurIPS 2020 (arXiv 2010.14810), whose title
    begins with "Cycle-Contrast", have another one for networks of clips.

    The key of another frame of its video is the positive of a query. Two heads give the vectors of
    two losses: q and k, and for the cycle p and l. A random part of the queue, drawn anew at every
    step, are the candidates u, in which p has a soft nearest neighbour; the rest of the queue are
    the negatives v of the way back. With temperature t, all vectors normalised::

        p'   = sum over u of a_u u,   a = softmax over u of p u / t
        loss = InfoNCE(q, k, queue) + weight * InfoNCE(p' / |p'|, l, v)

    Source: github.com/happywu/CycleContrast at b0ae8a7, ``builder.py`` with ``train_cycle.sh``.

    Departures: the queue starts empty instead of with random vectors, and has one length for both
    losses; keys of the query's own video are neither candidates nor negatives, because a queue
    holds them often where there are few videos; a query without a candidate has no loss of the
    cycle; the augmentation and the optimiser are those of the comparison.
    """

    name = "cycle-contrast"
    title = "CycleContrast"
    source = "Wu and Wang, ICCV 2021, and its code"
    options_type = CycleContrastOptions
    heads_side_by_side = 2

    @classmethod
    def sampler(cls, frames: int, options: CycleContrastOptions) -> FrameSampler:
        """Returns a sampler of one pair per video."""
        return pairs_of_videos(frames)

    def make_head(self, width: int) -> nn.Module:
        """Returns the heads of both losses, whose vectors stand side by side."""
        return SideBySide(super().make_head(width), super().make_head(width))

    def compare(self, embedded: Sequence[Tensor], batch: FrameBatch) -> Tensor:
        """Returns the sum of the losses of the video and of the cycle."""
        (query, start), (key, end) = (halves(z) for z in embedded)
        queue = self.queued(key)
        negatives, neighbours = halves(queue.embedding.to(key.dtype))
        excluded, temperature = own_video(batch, queue), self.options.temperature
        self.remember(torch.cat([key, end], dim=1) / math.sqrt(2), batch)  # of length 1 together
        loss = info_nce(query, key, negatives, excluded, temperature)
        order = torch.randperm(len(neighbours), device=key.device)
        among, rest = order.tensor_split([math.ceil(self.options.share * len(order))])
        neighbour = soft_nearest(start, neighbours[among], excluded[:, among], temperature)
        without = excluded[:, among].all(dim=1, keepdim=True)
        back = info_nce(neighbour, end, neighbours[rest], excluded[:, rest] | without, temperature)
        return loss + self.options.weight * back


class SideBySide(nn.Module):
    """Heads on the same features, whose vectors are concatenated."""

    def __init__(self, *heads: nn.Module) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Tensor) -> Tensor:
        """Returns ``[N, D]`` vectors, D the sum of what the heads return."""
        return torch.cat([head(features) for head in self.heads], dim=1)


def halves(vectors: Tensor) -> list[Tensor]:
    """Returns both halves of vectors ``[N, 2 D]``, each normalised."""
    return [F.normalize(half, dim=1) for half in vectors.chunk(2, dim=1)]


def soft_nearest(query: Tensor, keys: Tensor, excluded: Tensor, temperature: float) -> Tensor:
    """Returns the normalised soft nearest neighbours of queries, ``[N, D]``; 0 where none is.

    Args:
        query: ``[N, D]``, normalised.
        keys: ``[K, D]``, normalised.
        excluded: bool ``[N, K]``, keys that are no neighbours of a query.
        temperature: divides the similarities.
    """
    # The least finite number instead of -inf: a row without neighbours is 0, and not NaN.
    least = torch.finfo(query.dtype).min
    share = (query @ keys.T / temperature).masked_fill(excluded, least).softmax(dim=1)
    return F.normalize(share.masked_fill(excluded, 0) @ keys, dim=1)
