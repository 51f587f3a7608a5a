"""A loss that is not finite ends the run, with its batch kept to look at."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from usucl._files import write_tensors
from usucl.data import BatchPart, FrameBatch
from usucl.run_folder import RunFolder
from usucl.training.module import NotFiniteError, batches_of

MOST_NAMES = 3


class _Step(NamedTuple):
    """A step whose loss is on its way from the device."""

    loss: Tensor
    arrived: torch.cuda.Event | None
    batch: FrameBatch | BatchPart
    number: int
    epoch: int
    batch_idx: int


class FiniteLoss(Callback):
    """Raises an error at the first loss that is NaN or infinite, and writes its batch.

    No step waits for a GPU: its loss is looked at after the step that follows it, or before a
    checkpoint, so that none is written from then on. With float16, the scaler skips steps whose
    gradients are not finite; their loss is finite, so they are none of these.

    Args:
        run: the run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._waiting: _Step | None = None
        self._begun: tuple[FrameBatch | BatchPart, int] | None = None

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: FrameBatch | BatchPart,
        batch_idx: int,
    ) -> None:
        """Keeps the batch for the case that its step fails."""
        self._begun = batch, batch_idx

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Tells of embeddings that a bank has refused as of a loss that is not finite."""
        if isinstance(exception, NotFiniteError) and self._begun is not None:
            self._settle(trainer)
            batch, number = self._begun
            place = (trainer.global_step + 1, trainer.current_epoch, number)
            self._waiting = _Step(torch.tensor(torch.nan), None, batch, *place)
            self._settle(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: FrameBatch | BatchPart,
        batch_idx: int,
    ) -> None:
        """Looks at the loss before, and sends this one to the CPU."""
        self._settle(trainer)
        loss = outputs["loss"].detach()
        arrived = None
        if loss.device.type == "cuda":
            loss = loss.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        step = (trainer.global_step, trainer.current_epoch, batch_idx)
        self._waiting = _Step(loss, arrived, batch, *step)
        if arrived is None:
            self._settle(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the last loss of the epoch."""
        self._settle(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Looks at the last loss before the checkpoint replaces a good one."""
        self._settle(trainer)

    def _settle(self, trainer: Trainer) -> None:
        step, self._waiting = self._waiting, None
        if step is None:
            return
        if step.arrived is not None:
            step.arrived.synchronize()
        if not bool(step.loss.isfinite()):
            names = self._write(trainer, step)
            kept = "the last checkpoint before it is kept"
            if not self.run.checkpoint.exists():
                kept = "there is no checkpoint before it"
            raise ValueError(
                f"the loss must be finite, got {float(step.loss)} at step {step.number} (epoch "
                f"{step.epoch + 1}, batch {step.batch_idx + 1}), with frames of {names}: the batch "
                f"is in {self.run.failed_batch}, and {kept}; look "
                "at its views, and try a lower optimiser.lr, or precision='32-true', in another run"
            )

    def _write(self, trainer: Trainer, step: _Step) -> str:
        """Writes the batch; returns its videos in words."""
        batches, batch = batches_of(trainer), step.batch
        entries = batches.catalog.entries
        if isinstance(batch, BatchPart):  # every process knows it, and the first writes it
            batch = batches.share((step.epoch, step.batch_idx), 0, 1, images=trainer.is_global_zero)
        tensors = {
            name: value.cpu() for name, value in batch._asdict().items() if value is not None
        }
        ids = [entries[index].id for index in tensors["video"].tolist()]
        facts = {
            "step": step.number,
            "epoch": step.epoch,
            "batch": step.batch_idx,
            "loss": str(float(step.loss)),
            "video_ids": ids,
        }
        metadata = {name: json.dumps(value) for name, value in facts.items()}
        if trainer.is_global_zero:
            write_tensors(self.run.failed_batch, tensors, metadata)
        frames: dict[str, list[int]] = {}
        for name, frame in zip(ids, tensors["frame"].tolist(), strict=True):
            frames.setdefault(name, []).append(frame)
        said = [f"{name} ({', '.join(map(str, which[:8]))})" for name, which in frames.items()]
        more = f" and {len(said) - MOST_NAMES} more videos" if len(said) > MOST_NAMES else ""
        return ", ".join(said[:MOST_NAMES]) + more
