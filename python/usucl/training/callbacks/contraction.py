"""An alarm when the embeddings contract: told, kept in ``warnings.csv``, shown with the progress.

A healthy run spreads its embeddings; one that contracts maps all frames to nearly one point or
line, or finds other frames more similar than the other view of the same frame, and does not come
back from there by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from usucl.data import FrameBatch
from usucl.losses import LossInputs, Selection, positive_similarities
from usucl.training.callbacks.monitor import Monitor
from usucl.training.module import ContrastiveTraining

ROWS = 5
"""Rows of metrics in succession after which something is no accident of one batch."""

WARM_UP = 50
"""Steps after which rows count: an encoder from random weights has not spread its embeddings yet,
and finds other frames as similar as the other view of the same frame."""

LEAST_RANK = 0.1
"""Effective rank of a batch, as a share of the greatest possible one."""

MOST_UNIFORMITY = -1.0
"""``uniformity`` of frames of different videos: 0 in one point, about -4 all over the sphere. At
-1, their mean cosine similarity is about 0.75."""

HIGHER = 0.1
"""By how much the hardest cross-video negatives are above the positives on average. In a healthy
run this falls from about 0.2 to below 0 in some fifty steps, and swings by 0.05."""


class Contraction(Callback):
    """Gives an alarm, once of each kind, when a measure is past its limit for ``ROWS`` rows.

    Args:
        monitor: has the row of the last step that got one.
        tell: tells a warning of a kind at a step, and keeps it.

    Attributes:
        note: the alarms that are on, in words, for the progress line; empty if all is well.
    """

    def __init__(self, monitor: Monitor, tell: Callable[[str, int, str], None]) -> None:
        self.monitor = monitor
        self.tell = tell
        self.note = ""
        self._past: dict[str, int] = {}

    def state_dict(self) -> dict[str, Any]:
        """Returns for how many rows each measure has been past its limit."""
        return {"past": dict(self._past)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of the last checkpoint."""
        self._past = dict(state_dict["past"])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: FrameBatch,
        batch_idx: int,
    ) -> None:
        """Looks at the row of the step, if it got one."""
        assert isinstance(pl_module, ContrastiveTraining)
        row = self.monitor.row
        step = trainer.global_step
        if row is None or row["step"] != step or step <= WARM_UP:
            return
        inputs = outputs["inputs"]
        most = min(inputs.anchors.embedding.shape)
        found = past_limits(row, most, higher(inputs, outputs["selection"]))
        self._past = {kind: self._past.get(kind, 0) + 1 for kind in found}
        on = [kind for kind, rows in self._past.items() if rows >= ROWS]
        self.note = ", ".join(on)
        for kind in on:
            text = f"{found[kind]}, past its limit in {ROWS} rows of metrics: {ADVICE[kind]}"
            self.tell(kind, step, text)


ADVICE = {
    "collapsing": (
        "the encoder maps its frames to ever fewer directions; try a lower optimiser.lr, a higher "
        "loss.temperature or more videos per batch, and look whether the videos differ at all"
    ),
    "negatives above positives": (
        "frames of other videos are more similar than two views of one frame; try a lower "
        "optimiser.lr, weaker augmentation or a smaller sampling.positive_radius, and look for "
        "copies among the videos, whose patients labels.csv should name (or loss.max_similarity)"
    ),
}


@torch.no_grad()
def higher(inputs: LossInputs, selection: Selection) -> float:
    """Returns by how much the hardest cross-video negatives are above the positives, on average.

    An anchor counts if it has one; of several positives, their mean. NaN if none counts. Frames of
    the anchor's own video may well be as similar as its positive, which is one of them, too.
    """
    if not selection.cross_similarity.shape[1]:
        return math.nan
    hardest = selection.cross_similarity.amax(1)
    has = hardest > -math.inf
    return float((hardest - positive_similarities(inputs).mean(1))[has].mean())


def past_limits(row: Mapping[str, float], most: int, higher: float) -> dict[str, str]:
    """Returns what is past its limit in a row of metrics, by kind, in words.

    Args:
        row: the metrics of a step; NaN where there is nothing to tell.
        most: the greatest possible effective rank, the smaller of the batch and its dimensions.
        higher: see :func:`higher`.
    """
    found: dict[str, str] = {}
    rank, spread = row["effective_rank"], row["uniformity"]
    if rank < max(LEAST_RANK * most, 1.5):
        found["collapsing"] = f"effective_rank was {rank:.1f} of at most {most}"
    elif spread > MOST_UNIFORMITY:
        found["collapsing"] = f"uniformity was {spread:.2f} (0 is a single point)"
    if higher > HIGHER:
        found["negatives above positives"] = (
            "the hardest cross-video negatives were more similar than the positives, by "
            f"{higher:.2f} on average"
        )
    return {kind: text for kind, text in found.items() if not math.isnan(rank)}
