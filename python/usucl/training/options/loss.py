"""Options of the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

from usucl._ranges import check_range


@dataclass(frozen=True)
class LossConfig:
    """Options of :func:`usucl.losses.hard_negative_nce`; see there.

    Attributes:
        intra_k: number of hardest negatives from the anchor's own video.
        cross_k: number of hardest negatives from other videos.
        intra_skip, cross_skip: number of still harder negatives that are left out.
        temperature: what the similarities are divided by.
        soft_nn_temperature: if given, the negatives from other videos count as one, their soft
            nearest neighbour at this temperature.
        max_similarity: negatives that are more similar than this are left out.
        margin: so are those more similar than the anchor's positive by more than this.
    """

    intra_k: int = 3
    cross_k: int = 32
    intra_skip: int = 0
    cross_skip: int = 0
    temperature: float = 0.1
    soft_nn_temperature: float | None = None
    max_similarity: float | None = None
    margin: float | None = None

    def __post_init__(self) -> None:
        for name in ("intra_k", "cross_k", "intra_skip", "cross_skip"):
            check_range(f"loss.{name}", getattr(self, name), 0)
        for name in ("temperature", "soft_nn_temperature"):
            check_range(f"loss.{name}", getattr(self, name), 0, above=True)
        for name in ("max_similarity", "margin"):
            if (value := getattr(self, name)) is not None and math.isnan(value):
                raise ValueError(f"loss.{name} must be a number, got {value}")
