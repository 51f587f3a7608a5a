"""A batch that several processes share: each has some of the images, and knows what all are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from usucl.data.sampling.batches import FrameBatch


class BatchPart(NamedTuple):
    """The images that one of several processes has of a batch, and what the whole batch is.

    As every process knows the whole batch, only embeddings need to be exchanged.

    Attributes:
        whole: the whole batch. In its views every image is its number in the batch, an int64 tensor
            ``[1, 1, 1]``.
        images: float32 ``[n, 3, S, S]``, the images that this process has.
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
