"""Options of the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

from usucl._ranges import check_range


@dataclass(frozen=True)
class LossConfig:
    """Options of :func:`usucl.losses.contrastive_loss`; see there for the equations.

    Attributes:
        intra_k: number of hardest negatives from the anchor's own video.
        cross_k: number of hardest negatives from other videos.
        intra_skip, cross_skip: number of still harder negatives that are left out. With ``*_k``
            they choose a band of hardness, which is how to leave out false negatives whose number
            is about known, such as the other recordings of an unknown patient. A batch without a
            bank has few intra-video negatives: a skip may leave none.
        temperature: what the similarities are divided by.
        soft_nn_temperature: if given, the negatives from other videos count as one, their soft
            nearest neighbour at this temperature.
        max_similarity: negatives that are more similar than this are left out.
        margin: so are those more similar than the anchor's positive by more than this. Use it where
            near-duplicates are many and their number varies; ``struck_by_margin`` among the metrics
            says how many it leaves out.
        positive_decay: time, in ``sampling.time_unit``, over which the weight of a positive falls
            to 37 %, for several positives per anchor (``sampling.positives``): near frames then
            count more than distant ones; null for equal weights.
        label_smoothing: share of the target, from 0 to below 1, that is spread evenly over the
            positive and all its negatives, such as 0.1: negatives that are far already are pushed
            no further, which is for data in which many of them look like the anchor.
    """

    intra_k: int = 3
    cross_k: int = 32
    intra_skip: int = 0
    cross_skip: int = 0
    temperature: float = 0.1
    soft_nn_temperature: float | None = None
    max_similarity: float | None = None
    margin: float | None = None
    positive_decay: float | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("intra_k", "cross_k", "intra_skip", "cross_skip"):
            check_range(f"loss.{name}", getattr(self, name), 0)
        for name in ("temperature", "soft_nn_temperature", "positive_decay"):
            check_range(f"loss.{name}", getattr(self, name), 0, above=True)
        for name in ("max_similarity", "margin"):
            if (value := getattr(self, name)) is not None and math.isnan(value):
                raise ValueError(f"loss.{name} must be a number, got {value}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing must be in [0, 1), got {self.label_smoothing}")
