"""What every operation takes and returns: frames and selections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor

Window = tuple[float, float] | Sequence[float] | Tensor | None
Reduction = Literal["mean", "sum", "none"]
Implementation = Literal["auto", "native", "reference"]


class Frames(NamedTuple):
    """Embedded frames and where they come from; one row per frame.

    Attributes:
        embedding: ``[M, D]`` float32, bfloat16, float16 or float64; L2-normalised by the caller.
        video: ``[M]`` int64, the id of the video; negative marks an empty slot.
        time: ``[M]`` float32, the frame's time in the unit of the window; NaN is never inside one.
        patient: ``[M]`` int64, the id of the patient, negative where unknown; or ``None``. It is
            given in all ``Frames`` of a call or in none.
    """

    embedding: Tensor
    video: Tensor
    time: Tensor
    patient: Tensor | None = None

    def take(self, rows: Tensor | slice) -> Frames:
        """Returns the frames of ``rows``: an index ``[K]``, a mask ``[M]`` bool, or a slice."""
        patient = None if self.patient is None else self.patient[rows]
        return Frames(self.embedding[rows], self.video[rows], self.time[rows], patient)


class Selection(NamedTuple):
    """The negatives taken for each anchor, hardest first; not differentiable.

    An index counts through the key blocks in the order given. Where fewer than ``k``
    keys are valid, the index is -1 and the similarity -inf.

    Attributes:
        intra_index: ``[N, intra_k]`` int64, negatives of the anchor's own video.
        intra_similarity: ``[N, intra_k]`` float32 (float64 for double embeddings).
        cross_index: ``[N, cross_k]`` int64, negatives of other videos.
        cross_similarity: ``[N, cross_k]`` float32 (float64 for double embeddings).
    """

    intra_index: Tensor
    intra_similarity: Tensor
    cross_index: Tensor
    cross_similarity: Tensor
