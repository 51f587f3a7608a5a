"""A curriculum that is driven by hardness: when intra-video negatives are easy, windows narrow."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from usucl._terminal import say
from usucl.data import FrameBatch, FrameBatches


class NarrowingWindows(Callback):
    """Tells the batches when to go on to the curriculum's next window, at the ends of epochs.

    The epochs at which it did are in the checkpoint, so a resumed run goes on in the same windows.
    Processes decide together.

    Args:
        batches: their curriculum is of kind ``hardness``.
    """

    def __init__(self, batches: FrameBatches) -> None:
        self.batches = batches
        self._found: Tensor | None = None  # float64 [2], sum of similarities and their number

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run must know."""
        return {"narrowed": list(self.batches.narrowed), "found": self._found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the windows of the last checkpoint, before the first batch is drawn."""
        self.batches.narrowed = tuple(state_dict["narrowed"])
        self._found = state_dict.get("found")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Brings the mean of an epoch that goes on to the training device."""
        if self._found is not None:
            self._found = self._found.to(pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins a new mean."""
        self._found = None

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: FrameBatch,
        batch_idx: int,
    ) -> None:
        """Adds the step's anchors that have found an intra-video negative; waits for no device."""
        similarity = outputs["selection"].intra_similarity
        if similarity.shape[1] == 0:
            return
        found = similarity > -math.inf
        last = similarity.masked_fill(~found, math.inf).amin(1)
        has = found.any(1)
        step = torch.stack([last.where(has, 0).double().sum(), has.double().sum()])
        self._found = step if self._found is None else self._found + step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decides on the window of the next epoch; the checkpoint is written afterwards."""
        found = torch.zeros(2, dtype=torch.float64, device=pl_module.device)
        total = trainer.strategy.reduce(
            found if self._found is None else self._found, reduce_op="sum"
        )
        assert isinstance(total, Tensor)
        sum_, number = total.tolist()
        similarity = sum_ / number if number else math.nan
        batches, epoch = self.batches, trainer.current_epoch
        if batches.curriculum.narrows(epoch, batches.narrowed, similarity):
            batches.narrowed = (*batches.narrowed, epoch + 1)
            lo, hi = batches.window(epoch + 1)
            say(
                f"Intra-video negatives have become easy (similarity {similarity:.3f} in epoch "
                f"{epoch + 1}): the window narrows to {lo:g} to {hi:g}",
                stderr=True,
            )
