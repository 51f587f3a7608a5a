"""CycleContrast: the nearest frames of other videos lead back to the video of the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from usucl._ranges import check_range
from usucl.comparison.objectives.moco import MoCoOptions, QueuedObjective, info_nce, own_video
from usucl.comparison.objectives.objective import pairs_of_videos
from usucl.data import FrameBatch, FrameSampler


@dataclass(frozen=True)
class CycleContrastOptions(MoCoOptions):
    """Options of CycleContrast.

    Attributes:
        weight: of the loss of the cycle; that of the video has 1.
    """

    temperature: float = 0.07
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("weight", self.weight, 0)


class CycleContrast(QueuedObjective[CycleContrastOptions]):
    """Wu and Wang, ICCV 2021 (arXiv 2105.06463), section 3.

    This is the method of the name for encoders of images; Kong et al., NeurIPS 2020 (arXiv
    2010.14810) have one for networks of whole clips.

    A query q and the key k of another frame of its video are a positive pair. The frames u of other
    videos in the queue are the negatives, and q has a soft nearest neighbour among them. With
    temperature t, all vectors normalised::

        q'   = sum over u of a_u u,   a = softmax over u of q u / t
        loss = InfoNCE(q, k, u) + weight * InfoNCE(q' / |q'|, k, u)

    Departures: one head serves both losses; both have one temperature; the queue starts empty, and
    a query without a frame of another video has a loss of 0; the augmentation and the optimiser are
    those of the comparison.
    """

    name = "cycle-contrast"
    title = "CycleContrast"
    source = "Wu and Wang, ICCV 2021, section 3"
    options_type = CycleContrastOptions

    @classmethod
    def sampler(cls, frames: int, options: CycleContrastOptions) -> FrameSampler:
        """Returns a sampler of one pair per video."""
        return pairs_of_videos(frames)

    def compare(self, embedded: Sequence[Tensor], batch: FrameBatch) -> Tensor:
        """Returns the sum of the losses of the video and of the cycle."""
        query, key = (F.normalize(z, dim=1) for z in embedded)
        queue, temperature = self.queued(key), self.options.temperature
        excluded = own_video(batch, queue)
        neighbour = soft_nearest(query, queue.embedding, excluded, temperature)
        self.remember(key, batch)
        back = info_nce(neighbour, key, queue, excluded, temperature)
        return info_nce(query, key, queue, excluded, temperature) + self.options.weight * back


def soft_nearest(query: Tensor, keys: Tensor, excluded: Tensor, temperature: float) -> Tensor:
    """Returns the normalised soft nearest neighbours of queries, ``[N, D]``; 0 where none is.

    Args:
        query: ``[N, D]``, normalised.
        keys: ``[K, D]``, normalised.
        excluded: bool ``[N, K]``, keys that are no neighbours of a query.
        temperature: divides the similarities.
    """
    keys = keys.to(query.dtype)
    # The least finite number instead of -inf: a row without neighbours is 0, and not NaN.
    least = torch.finfo(query.dtype).min
    share = (query @ keys.T / temperature).masked_fill(excluded, least).softmax(dim=1)
    return F.normalize(share.masked_fill(excluded, 0) @ keys, dim=1)
