"""The training of one arm: the same frames, steps, optimiser and first weights for all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor, nn

from usucl.comparison.design.arms import Arm
from usucl.comparison.design.config import ComparisonConfig
from usucl.comparison.objectives import Objective, find_objective
from usucl.comparison.training.supervised import Supervised
from usucl.data import (
    Curriculum,
    FrameBatch,
    Sampler,
    UniformSampler,
    VideoCatalog,
    VideoDataModule,
)
from usucl.data.sampling.clock import TimeUnit
from usucl.methods import METHODS
from usucl.models import EncoderConfig, FrameEncoder
from usucl.training.callbacks.progress import num_images
from usucl.training.config import TrainingConfig
from usucl.training.fitting import make_datamodule, quiet
from usucl.training.module import ContrastiveTraining
from usucl.training.presets import read_config

CURVE = 24
"""Points of a learning curve."""


@dataclass(frozen=True)
class Pretrained:
    """What the training of an arm has come to.

    Attributes:
        encoder: the network; its head is of no use where the arm has another.
        predict: probabilities of the classes of a column of labels, from the column and features,
            by a supervised arm; else None.
        curve: (step, loss), the mean of the steps since the point before.
        seconds: time of the training steps.
        images_per_second: views seen per second.
    """

    encoder: FrameEncoder
    predict: Callable[[str, Tensor], Tensor] | None = None
    curve: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    images_per_second: float = 0.0


def pretrain(
    arm: Arm,
    config: ComparisonConfig,
    videos: VideoCatalog,
    truth: Mapping[str, tuple[int, Sequence[NDArray[np.int64]]]],
    seed: int,
) -> Pretrained:
    """Trains the encoder of an arm.

    Args:
        arm: the arm.
        config: the options of the comparison.
        videos: the videos to train on.
        truth: by column of labels, the number of classes and the class of every frame of
            ``videos``; only a supervised arm looks at it.
        seed: seed of the first weights and of every random draw.

    Raises:
        RuntimeError: the loss is not finite, or ImageNet's weights cannot be fetched.
    """
    if arm.weights is not None:
        return Pretrained(first_encoder(config, seed, pretrained=arm.weights == "imagenet"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module, data = _module_and_data(arm, config, videos, truth, seed)
        recorder = _Recorder(config.steps)
        with quiet():
            trainer = Trainer(
                devices=1,
                max_epochs=-1 if arm.method is None else module.config.epochs,
                max_steps=config.steps,
                precision=config.precision,
                callbacks=[recorder],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(module, datamodule=data)
    predict = None
    if isinstance(module, ObjectiveTraining) and isinstance(module.objective, Supervised):
        predict = module.objective.eval().predict
    return Pretrained(
        module.encoder.eval(),
        predict,
        tuple(recorder.curve),
        recorder.seconds,
        recorder.images / recorder.seconds,
    )


def first_encoder(config: ComparisonConfig, seed: int, *, pretrained: bool = False) -> FrameEncoder:
    """Returns the encoder that the arms of a seed start from.

    Raises:
        RuntimeError: ImageNet's weights cannot be fetched.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = EncoderConfig(
            config.backbone, config.image_size, config.dim, "mlp-bn", pretrained=pretrained
        )
        return FrameEncoder(encoder).eval()


def _module_and_data(
    arm: Arm,
    config: ComparisonConfig,
    videos: VideoCatalog,
    truth: Mapping[str, tuple[int, Sequence[NDArray[np.int64]]]],
    seed: int,
) -> tuple[ContrastiveTraining | ObjectiveTraining, VideoDataModule]:
    if arm.method is not None:
        training = training_config(arm, config, seed)
        data = make_datamodule(videos, training)
        epochs = math.ceil(config.steps / len(data.batches))
        if epochs != training.epochs:  # the length of an epoch is not for this method to choose
            training = replace(training, epochs=epochs)
            data = make_datamodule(videos, training)
        return ContrastiveTraining(training), data
    encoder = first_encoder(config, seed).train()  # Lightning leaves modules in their mode
    features = Features(encoder)
    objective: Objective[Any] | Supervised
    sampler: Sampler
    unit: TimeUnit = "fraction"
    if arm.supervised is not None:
        named = truth if arm.supervised == "all" else arm.supervised
        labels = {column: truth[column] for column in named}
        objective = Supervised(features, features.width, labels)
        sampler = UniformSampler(config.frames)
    else:
        kind, options = find_objective(str(arm.objective)), objective_options(arm)
        objective = kind(features, features.width, config.steps, options)
        sampler, unit = kind.sampler(config.frames, options), kind.time_unit
    data = VideoDataModule(
        videos,
        sampler,
        image_size=config.image_size,
        augmentation=config.augmentation,
        time_unit=unit,
        curriculum=Curriculum(kind="constant", windows=((0.0, 0.0),)),  # there are no negatives
        cache_gb=config.cache_gb,
        seed=seed,
    )
    return ObjectiveTraining(encoder, objective, config), data


def objective_options(arm: Arm) -> Any:
    """Returns the checked options of the objective of an arm."""
    try:
        return find_objective(str(arm.objective)).options_from(arm.options)
    except (ValueError, TypeError) as error:
        raise type(error)(f"arms.{arm.name}.options: {error}") from error


def training_config(arm: Arm, config: ComparisonConfig, seed: int) -> TrainingConfig:
    """Returns the options with which :func:`usucl.train` would train an arm of this package."""
    shared: dict[str, Any] = {
        "data": config.data,
        "seed": seed,
        "epochs": config.epochs,
        "precision": config.precision,
        "log_every": config.steps,
        "encoder.backbone": config.backbone,
        "encoder.image_size": config.image_size,
        "encoder.dim": config.dim,
        "encoder.head": "mlp-bn",
        "encoder.pretrained": False,  # first weights are those of every arm
        "sampling.augmentation": config.augmentation,
        "sampling.cache_gb": config.cache_gb,
        "optimiser.kind": "adamw",
        "optimiser.lr": config.lr,
        "optimiser.weight_decay": config.weight_decay,
    }
    if hasattr(METHODS[str(arm.method)].sampling_options, "frames"):  # many anchors per video
        shared |= {
            "sampling.videos": config.videos,
            "sampling.frames": config.frames // config.videos,
            "sampling.steps_per_epoch": config.steps // config.epochs,
        }
    else:
        shared["sampling.videos"] = config.frames
    try:
        return read_config(str(arm.method), {**shared, **arm.options})
    except (ValueError, TypeError) as error:
        raise type(error)(f"arms.{arm.name}.options: {error}") from error


class ObjectiveTraining(LightningModule):
    """The training step of an objective, with the optimiser and the schedule of every arm."""

    def __init__(
        self,
        encoder: FrameEncoder,
        objective: Objective[Any] | Supervised,
        config: ComparisonConfig,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.objective = objective
        self.config = config

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
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.config.steps)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class _Recorder(Callback):
    """Keeps the losses, and the time of the steps with that for their batches."""

    def __init__(self, steps: int) -> None:
        self.every = max(1, steps // CURVE)
        self.curve: list[tuple[int, float]] = []
        self.seconds = 0.0
        self.images = 0
        self._losses: list[Tensor] = []
        self._since = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: FrameBatch,
        batch_idx: int,
    ) -> None:
        self._losses.append(outputs["loss"].detach())
        self.images += num_images(batch)
        if len(self._losses) == self.every or trainer.is_last_batch:
            loss = float(torch.stack(self._losses).mean())
            if not np.isfinite(loss):
                raise RuntimeError(f"the loss is not finite by step {trainer.global_step}: {loss}")
            if len(self._losses) == self.every:
                self.curve.append((trainer.global_step, loss))
                self._losses = []

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
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
        first = next(layer for layer in encoder.head.modules() if isinstance(layer, nn.Linear))
        self.width = first.in_features
        encoder.head = nn.Identity()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """Returns features ``[B, width]`` of normalised images."""
        return self.encoder.features(images)
