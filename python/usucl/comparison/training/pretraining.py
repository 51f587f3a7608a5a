"""The training of one arm: the same frames, steps, optimiser and first weights for all."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from usucl.comparison.design.arms import Arm
from usucl.comparison.design.config import ComparisonConfig
from usucl.comparison.objectives import Objective, find_objective
from usucl.comparison.training.fitting import Features, ObjectiveTraining, Trained, batches, fit
from usucl.comparison.training.supervised import Supervised, Truth
from usucl.data import Sampler, UniformSampler, VideoCatalog, VideoDataModule
from usucl.data.sampling.clock import TimeUnit
from usucl.methods import METHODS
from usucl.models import EncoderConfig, FrameEncoder
from usucl.training.config import TrainingConfig
from usucl.training.fitting import make_datamodule
from usucl.training.module import ContrastiveTraining
from usucl.training.presets import read_config


def pretrain(
    arm: Arm,
    config: ComparisonConfig,
    videos: VideoCatalog,
    truth: Truth,
    seed: int,
) -> Trained:
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
        return Trained(first_encoder(config, seed, pretrained=arm.weights == "imagenet"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module, data = _module_and_data(arm, config, videos, truth, seed)
        epochs = -1 if arm.method is None else module.config.epochs
        recorder = fit(module, data, config, config.steps, epochs)
    objective = module.objective if isinstance(module, ObjectiveTraining) else None
    classifier = objective if isinstance(objective, Supervised) else None
    return recorder.trained(module.encoder, classifier)


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
    truth: Truth,
    seed: int,
) -> tuple[ContrastiveTraining | ObjectiveTraining, VideoDataModule]:
    if arm.method is not None:
        training = training_config(arm, config, seed)
        moving = tuple(entry for entry in videos if entry.num_frames > 1)
        if not moving:
            raise RuntimeError("data must hold videos of two frames or more, got single images")
        videos = replace(videos, entries=moving)
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
    data = batches(videos, sampler, config, seed, unit)
    return ObjectiveTraining(encoder, objective, config, config.steps), data


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
        "sampling.num_workers": config.num_workers,
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
