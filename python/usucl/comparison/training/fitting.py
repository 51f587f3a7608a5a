"""The steps of a training, with the same optimiser and schedule for every arm."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from usucl.comparison.design.config import ComparisonConfig
from usucl.comparison.objectives import Objective
from usucl.comparison.training.supervised import Supervised
from usucl.data import Curriculum, FrameBatch, Sampler, VideoCatalog, VideoDataModule
from usucl.data.sampling.clock import TimeUnit
from usucl.models import FrameEncoder
from usucl.training.callbacks.progress import num_images
from usucl.training.fitting import quiet

CURVE = 24
"""Points of a learning curve."""


@dataclass(frozen=True)
class Trained:
    """What a training has come to.

    Attributes:
        encoder: the network; its head is of no use where the arm has another.
        classifier: what tells classes from features, if it was trained with labels; else None.
        curve: (step, loss), the mean of the steps since the point before.
        seconds: time of the training steps.
        images_per_second: views seen per second.
    """

    encoder: FrameEncoder
    classifier: Supervised | None = None
    curve: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    images_per_second: float = 0.0


def batches(
    videos: VideoCatalog,
    sampler: Sampler,
    config: ComparisonConfig,
    seed: int,
    unit: TimeUnit = "fraction",
) -> VideoDataModule:
    """Returns the batches of a training without sampled negatives."""
    return VideoDataModule(
        videos,
        sampler,
        image_size=config.image_size,
        augmentation=config.augmentation,
        time_unit=unit,
        curriculum=Curriculum(kind="constant", windows=((0.0, 0.0),)),
        cache_gb=config.cache_gb,
        num_workers=config.num_workers,
        seed=seed,
    )


def fit(
    module: LightningModule,
    data: VideoDataModule,
    config: ComparisonConfig,
    steps: int,
    epochs: int = -1,
) -> Recorder:
    """Trains a module and returns how it went.

    Args:
        module: what is trained.
        data: its batches.
        config: the options of the comparison.
        steps: number of steps.
        epochs: number of epochs, for a schedule that depends on it; -1 for as many as it takes.

    Raises:
        RuntimeError: the loss is not finite.
    """
    recorder = Recorder(steps)
    with quiet():
        trainer = Trainer(
            devices=1,
            max_epochs=epochs,
            max_steps=steps,
            precision=config.precision,
            callbacks=[recorder],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data)
    return recorder


class ObjectiveTraining(LightningModule):
    """The training step of an objective, with the optimiser and the schedule of every arm."""

    def __init__(
        self,
        encoder: FrameEncoder,
        objective: Objective[Any] | Supervised,
        config: ComparisonConfig,
        steps: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.objective = objective
        self.config = config
        self.steps = steps

    def training_step(self, batch: FrameBatch, batch_idx: int) -> Tensor:
        """Returns the loss of one batch."""
        return self.objective.loss(batch)

    def on_train_batch_end(self, outputs: Any, batch: FrameBatch, batch_idx: int) -> None:
        """Lets momentum encoders and queues follow."""
        self.objective.after_step(self.global_step - 1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Returns AdamW, whose rate falls along half a cosine to 0."""
        trained = [p for p in self.objective.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(
            trained, lr=self.config.lr, weight_decay=self.config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class Recorder(Callback):
    """Keeps the losses, and the time of the steps with that for their batches."""

    def __init__(self, steps: int) -> None:
        self.every = max(1, steps // CURVE)
        self.curve: list[tuple[int, float]] = []
        self.seconds = 0.0
        self.images = 0
        self._losses: list[Tensor] = []
        self._since = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: FrameBatch,
        batch_idx: int,
    ) -> None:
        """Keeps the loss, which stays on its device until a point of the curve is full."""
        self._losses.append(outputs["loss"].detach())
        self.images += num_images(batch)
        if len(self._losses) == self.every or trainer.is_last_batch:
            loss = float(torch.stack(self._losses).mean())
            if not np.isfinite(loss):
                raise RuntimeError(f"the loss is not finite by step {trainer.global_step}: {loss}")
            if len(self._losses) == self.every:
                self.curve.append((trainer.global_step, loss))
                self._losses = []

    def trained(self, encoder: FrameEncoder, classifier: Supervised | None = None) -> Trained:
        """Returns what was trained, ready for use, with what was recorded."""
        if classifier is not None:
            classifier.eval()
        speed = self.images / self.seconds
        return Trained(encoder.eval(), classifier, tuple(self.curve), self.seconds, speed)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._since


class Features(nn.Module):
    """The network of an encoder, without its head, as a module that an objective can copy.

    Args:
        encoder: loses its head.

    Attributes:
        width: number of features.
    """

    def __init__(self, encoder: FrameEncoder) -> None:
        super().__init__()
        self.width = encoder.width
        encoder.head = nn.Identity()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """Returns features ``[B, width]`` of normalised images."""
        return self.encoder.features(images)
