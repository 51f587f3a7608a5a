"""A batch; and one that several processes share, of which each has some of the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class FrameBatch(NamedTuple):
    """One training batch of N anchors with k sampled intra-video negatives each.

    Views are normalised float32 images of C channels, 3 or 1. Where a video has no frame inside the
    window, the negative's time is NaN, which no temporal window contains, and its view shows the
    anchor. The time of an anchor is NaN where the pixel guard leaves it no intra-video negatives;
    the offset of its positives is known all the same.
    """

    anchor_view: Tensor  # float32 [N, C, S, S]
    positive_view: Tensor  # float32 [N, C, S, S], a near frame; [N, R, C, S, S] for R > 1 of them
    negative_view: Tensor  # float32 [N, k, C, S, S]
    video: Tensor  # int64 [N], index in the catalogue
    time: Tensor  # float32 [N], of the anchor, in ``time_unit``
    patient: Tensor  # int64 [N], -1 where unknown
    frame: Tensor  # int64 [N], index of the anchor's frame
    negative_time: Tensor  # float32 [N, k]
    positive_offset: Tensor | None = None  # float32 [N] or [N, R], time since that of the anchor


class BatchPart(NamedTuple):
    """The images that one of several processes has of a batch, and what the whole batch is.

    As every process knows the whole batch, only embeddings need to be exchanged.

    Attributes:
        whole: the whole batch. In its views every image is its number in the batch, an int64 tensor
            ``[1, 1, 1]``.
        images: float32 ``[n, C, S, S]``, the images that this process has.
        number: int64 ``[n]``, their numbers.
        owner: int64, the process that has each image of the whole batch.
    """

    whole: FrameBatch
    images: Tensor
    number: Tensor
    owner: Tensor

    @property
    def anchor_view(self) -> Tensor:
        """The images, by which a batch is told from another."""
        return self.images

    @classmethod
    def of(cls, whole: FrameBatch, own: FrameBatch, rows: Sequence[Tensor], rank: int) -> BatchPart:
        """Returns the part of process ``rank``.

        Args:
            whole: the whole batch, whose views may be empty.
            own: the rows of this process.
            rows: int64, the rows of each process.
            rank: number of this process.
        """
        n = len(whole.video)
        shapes = [view.shape[1:-3] for view in own[:3]]  # images per row
        counts = [shape.numel() for shape in shapes]
        number = torch.arange(n * sum(counts)).reshape(n, -1)
        views = [
            part.reshape(n, *shape, 1, 1, 1)
            for part, shape in zip(number.split(counts, dim=1), shapes, strict=True)
        ]
        images = [
            view.reshape(len(view), count, *view.shape[-3:])
            for view, count in zip(own[:3], counts, strict=True)
        ]
        owner = torch.empty(n, dtype=torch.int64)
        for other, theirs in enumerate(rows):
            owner[theirs] = other
        return cls(
            whole._replace(anchor_view=views[0], positive_view=views[1], negative_view=views[2]),
            torch.cat(images, dim=1).flatten(0, 1),
            number[rows[rank]].flatten(),
            owner.repeat_interleave(sum(counts)),
        )


def check_shares(videos: int, world: int) -> None:
    """Raises ValueError if there are fewer videos than processes to share them."""
    if videos < world:
        raise ValueError(
            f"world must be at most {videos}, the number of videos in the smallest batch, where "
            f"processes share it, got {world}"
        )


def rows_of(video: np.ndarray, rank: int, world: int) -> np.ndarray:
    """Returns the rows of every ``world``-th video of a batch, from the ``rank``-th on."""
    distinct = list(dict.fromkeys(video.tolist()))
    return np.flatnonzero(np.isin(video, distinct[rank::world]))
