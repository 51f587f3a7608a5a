"""The checks of a run before its first file: its options together, its data, and its memory."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from usucl.bank import NegativeBank
from usucl.data import FrameBatch, FrameBatches
from usucl.losses import Frames, LossInputs, contrastive_loss
from usucl.models import FrameEncoder
from usucl.models.encoder import untrained
from usucl.training.computing import check_device
from usucl.training.config import TrainingConfig
from usucl.training.loggers import check_loggers

MANY = 64  # negatives, more than a rehearsal has
STATES = 4  # copies of the weights: themselves, their gradients, and two of the optimiser


def rehearse(config: TrainingConfig, data: FrameBatches) -> None:
    """Goes through a step without its arithmetic, so that a wrong option is known at once.

    Raises:
        ValueError, TypeError: an option is out of its range, does not go with the others or with
            the data, or needs more memory or another device than this machine has; the message
            names it.
    """
    check_loggers(config.watching)
    gpu = config.running.chosen_accelerator() == "gpu"
    check_device(config, torch.device("cuda" if gpu and torch.cuda.is_available() else "cpu"))
    encoder = empty_encoder(config)
    _rehearse_memory(config, data, encoder)
    _rehearse_loss(config)
    _rehearse_bank(config)
    _rehearse_batch(config, data, encoder)


def rehearse_here(config: TrainingConfig, data: FrameBatches, processes: int) -> None:
    """Checks that several processes can train so together on this machine.

    Raises:
        ValueError: there are too many for the batches, the bank or this machine; the message names
            the option.
    """
    running, gpus = config.running, torch.cuda.device_count()
    if running.accelerator == "gpu" and not gpus:
        raise ValueError("running.accelerator must be cpu or auto, as no GPU is found, got gpu")
    if processes == 1:
        return
    accelerator = running.chosen_accelerator()
    if accelerator == "gpu" and running.devices > gpus:
        raise ValueError(
            f"running.devices must be at most {gpus}, the number of GPUs here, got "
            f"{running.devices}: give fewer, or running.accelerator=cpu"
        )
    if config.encoder.norm == "sync" and accelerator == "cpu":
        raise ValueError(
            "encoder.norm must be another than 'sync' for several processes on the CPU, where "
            "PyTorch has no synchronised batch normalisation: take 'group'"
        )
    rehearse_processes(config, data, processes)


def rehearse_processes(config: TrainingConfig, data: FrameBatches, processes: int) -> None:
    """Checks that several processes, on whatever machines, can share the batches and the bank.

    Raises:
        ValueError: there are too many; the message names the option.
    """
    if processes == 1:
        return
    wanted = f"{processes} processes"
    draws = [data.draw(0, step, guarded=False).video for step in (0, len(data) - 1)]
    videos = min(len(set(draw.tolist())) for draw in draws)
    if processes > videos:
        raise ValueError(
            f"running.devices must be at most {videos}, the number of videos in the smallest "
            f"batch, of which every process takes its share, got {wanted}: give more "
            "sampling.videos, or fewer processes"
        )
    if config.key.sharded and processes > config.key.bank:
        raise ValueError(f"key.bank must hold a frame for each of {wanted}, got {config.key.bank}")
    rows = len(draws[-1]) // videos * (videos // processes)
    _rehearse_batch(config, data, empty_encoder(config), rows)


def empty_encoder(config: TrainingConfig) -> FrameEncoder:
    """Returns the encoder with shapes instead of numbers."""
    try:
        with torch.device("meta"):
            return FrameEncoder(untrained(config.encoder))
    except ValueError as error:  # an image size that the network cannot take
        raise ValueError(f"encoder.{error}") from error
    except RuntimeError as error:  # more numbers than an integer can count
        raise ValueError(f"encoder.dim must be smaller, got {config.encoder.dim}") from error


def _rehearse_memory(config: TrainingConfig, data: FrameBatches, encoder: FrameEncoder) -> None:
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    images = config.make_method().images(len(data.catalog))
    loss, size = config.loss, config.encoder.image_size
    negatives = loss.intra_k + loss.cross_k + loss.intra_skip + loss.cross_skip
    sampling = [f"sampling.{name}" for name in ("videos", "frames", "positives", "negatives")]
    for options, numbers in (
        (["encoder.dim"], STATES * weights),
        (["key.bank", "encoder.dim"], config.key.bank * config.encoder.dim),
        (["encoder.image_size", *sampling], images * config.encoder.channels * size**2),
        (["loss.intra_k", "loss.cross_k", *sampling], images * negatives),
    ):
        here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if 4 * numbers > here:
            given = [f"{name} {value}" for name in options if (value := _value(config, name))]
            raise ValueError(
                f"{given[0]}{' with ' if given[1:] else ''}{', '.join(given[1:])} must be smaller: "
                f"{4e-9 * numbers:.3g} GB of memory are needed, this machine has "
                f"{1e-9 * here:.3g} GB"
            )


def _value(config: TrainingConfig, name: str) -> int | None:
    section, option = name.split(".")
    return getattr(getattr(config, section), option, None)


def _rehearse_loss(config: TrainingConfig) -> None:
    embedding = torch.eye(2)
    frames = Frames(embedding, torch.arange(2), torch.zeros(2))
    loss = config.loss
    inputs = LossInputs(frames, embedding, (frames,), torch.tensor([0.0, 1.0]), torch.ones(2, 1))
    few = replace(loss, intra_k=min(loss.intra_k, MANY), cross_k=min(loss.cross_k, MANY))
    try:
        contrastive_loss(inputs, **vars(few))
    except (ValueError, TypeError) as error:
        raise type(error)(f"loss.{error}") from error


def _rehearse_bank(config: TrainingConfig) -> None:
    key = config.key
    if key.bank > 0:
        try:
            NegativeBank(
                key.bank,
                config.encoder.dim,
                search=key.search,
                max_age=key.max_age,
                nprobe=key.nprobe,
                ef_search=key.ef_search,
                rebuild_after=key.rebuild_after,
            )
        except (ValueError, TypeError) as error:
            raise type(error)(f"key.{error}") from error


def _rehearse_batch(
    config: TrainingConfig, data: FrameBatches, encoder: FrameEncoder, rows: int | None = None
) -> None:
    """Encodes the smallest batch, the last of an epoch, with each window, without numbers.

    Of several processes, the one with the fewest has ``rows`` of it.
    """
    size, channels = config.encoder.image_size, config.encoder.channels
    for window in config.curriculum.windows:
        try:
            draw = data.draw(0, len(data) - 1, window, guarded=False)
        except (OverflowError, MemoryError) as error:
            raise ValueError(
                f"curriculum.windows must be smaller for these videos, got {window}"
            ) from error
    n, k = draw.negatives.shape
    n = n if rows is None else rows
    further = draw.positive.shape[1:]
    with torch.device("meta"):
        view = torch.empty(n, channels, size, size)
        ids, time = torch.empty(n).long(), torch.empty(n)
        positives = torch.empty(n, *further, channels, size, size)
        negatives, negative_time = torch.empty(n, k, channels, size, size), torch.empty(n, k)
        batch = FrameBatch(view, positives, negatives, ids, time, ids, ids, negative_time)
    try:
        config.make_method().inputs(batch, encoder, encoder, torch.empty(n, 2, device="meta"))
    except ValueError as error:
        sampling = config.sampling
        patients = "" if sampling.balance != "patient" else ", each of another patient,"
        raise ValueError(
            f"data must hold more videos{patients} to train on for method {config.method!r} with "
            f"encoder.backbone {config.encoder.backbone!r} and encoder.image_size {size}, whose "
            f"batch normalisation needs more than one value, got {len(data.catalog)} videos and "
            f"sampling.videos {sampling.videos}{'' if rows is None else ' for all processes'}"
        ) from error
