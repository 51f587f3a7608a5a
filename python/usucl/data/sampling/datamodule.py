"""Lightning's view of the training batches."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from usucl.data.augmentation import Augment, AugmentationOptions
from usucl.data.catalog.catalog import VideoCatalog
from usucl.data.sampling.batch import BatchPart, FrameBatch
from usucl.data.sampling.batches import FrameBatches
from usucl.data.sampling.clock import TimeUnit
from usucl.data.sampling.curriculum import Curriculum
from usucl.data.sampling.samplers import Sampler
from usucl.data.sampling.steps import EpochSteps


class VideoDataModule(lightning.LightningDataModule):
    """Training batches from a catalogue of videos, for Lightning.

    Args:
        catalog, sampler, image_size, channels, curriculum: see :class:`FrameBatches`.
        augmentation, time_unit, min_gap, guard, cache_gb, seed: likewise.
        num_workers: processes that make batches; 0 makes them in the training process.
        multiprocessing_context: how they are started, see :meth:`FrameBatches.loader`.
        split: several processes share every batch, and get each a :class:`BatchPart` of it; by
            default they take turns at the steps.

    Attributes:
        batches: the :class:`FrameBatches`.
        first: epoch and batch, of this process, with which a run begins or goes on.

    Raises:
        ValueError: see :class:`FrameBatches`.
    """

    def __init__(
        self,
        catalog: VideoCatalog,
        sampler: Sampler | None = None,
        *,
        image_size: int = 64,
        channels: int = 3,
        curriculum: Curriculum | None = None,
        augmentation: AugmentationOptions | Augment = "crop-flip-jitter",
        time_unit: TimeUnit = "fraction",
        min_gap: float = 0.0,
        guard: float | None = None,
        cache_gb: float = 4.0,
        num_workers: int = 0,
        multiprocessing_context: str | None = None,
        seed: int = 0,
        split: bool = False,
    ) -> None:
        super().__init__()
        self.batches = FrameBatches(
            catalog,
            sampler,
            image_size=image_size,
            channels=channels,
            curriculum=curriculum,
            augmentation=augmentation,
            time_unit=time_unit,
            min_gap=min_gap,
            guard=guard,
            cache_gb=cache_gb,
            seed=seed,
        )
        self.num_workers = num_workers
        self.multiprocessing_context = multiprocessing_context
        self.split = split
        self.first = (0, 0)

    def __repr__(self) -> str:
        return f"VideoDataModule({self.batches!r})"

    def setup(self, stage: str | None = None) -> None:
        """Decodes the videos, as many as ``cache_gb`` allows, before any worker starts."""
        self.batches.decode()

    def train_dataloader(self) -> DataLoader[FrameBatch]:
        """Returns the batches of this process, epoch by epoch; see :meth:`FrameBatches.loader`."""
        trainer = self.trainer
        split = self.split and trainer is not None and trainer.world_size > 1
        loader = self.batches.loader(
            num_workers=self.num_workers,
            multiprocessing_context=self.multiprocessing_context,
            rank=trainer.global_rank if trainer else 0,
            world=trainer.world_size if trainer else 1,
            split=split,
            whole=split,
        )
        assert isinstance(loader.sampler, EpochSteps)
        loader.sampler.go_on(*self.first)
        return loader

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Leaves the numbers of images on the CPU, which needs them to know what to exchange."""
        move = partial(super().transfer_batch_to_device, device=device, dataloader_idx=0)
        if not isinstance(batch, BatchPart):
            return move(batch)
        whole = FrameBatch(*batch.whole[:3], *move(batch.whole[3:]))
        return batch._replace(whole=whole, images=move(batch.images))

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch, over all processes."""
        return len(self.batches)

    def batch(self, epoch: int, step: int) -> FrameBatch:
        """Returns the batch of this epoch and step, as the data loader yields it."""
        return self.batches[epoch, step]

    def windows(self, video: Tensor, epoch: int, frame: Tensor | None = None) -> Tensor:
        """Returns the temporal window of every anchor; see :meth:`FrameBatches.windows`."""
        return self.batches.windows(video, epoch, frame)
