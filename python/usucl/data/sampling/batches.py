"""Batches for training: sampled frames, resized and augmented, with their times and patients."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from usucl.data.augmentation import Augment, Augmentation, AugmentationOptions
from usucl.data.catalog.catalog import VideoCatalog
from usucl.data.frames import FrameStore
from usucl.data.sampling.curriculum import Curriculum
from usucl.data.sampling.samplers import (
    MISSING,
    DenseSampler,
    Draw,
    Sampler,
    clamp_window,
    generator,
)
from usucl.data.sampling.workers import report_errors

TimeUnit = Literal["fraction", "frames", "seconds"]
MOST_NAMES = 20  # of videos, in a message


class FrameBatch(NamedTuple):
    """One training batch of N anchors with k sampled intra-video negatives each.

    Views are normalised float32 images. Where a video has no frame inside the window, the
    negative's time is NaN, which no temporal window contains, and its view shows the anchor.
    """

    anchor_view: Tensor  # float32 [N, 3, S, S]
    positive_view: Tensor  # float32 [N, 3, S, S], a near frame, another augmentation
    negative_view: Tensor  # float32 [N, k, 3, S, S]
    video: Tensor  # int64 [N], index in the catalogue
    time: Tensor  # float32 [N], of the anchor, in ``time_unit``
    patient: Tensor  # int64 [N], -1 where unknown
    frame: Tensor  # int64 [N], index of the anchor's frame
    negative_time: Tensor  # float32 [N, k]


class FrameBatches(Dataset[FrameBatch]):
    """The training batches of a catalogue, by (epoch, step); they need no training framework.

    The sampler decides what a batch holds: one anchor per video with sampled negatives
    (``FrameSampler``), or many anchors per video, whose negatives the loss finds in the batch
    (``DenseSampler``). A batch is a pure function of (seed, epoch, step): the number of workers
    does not change it. In a training loop of one's own::

        batches = FrameBatches(VideoCatalog.scan("videos"))
        loader = batches.loader(num_workers=4)
        for epoch in range(epochs):
            loader.sampler.set_epoch(epoch)
            for batch in loader:
                window = batches.windows(batch.video, epoch)

    Args:
        catalog: the videos to train on.
        sampler: draws the frames; by default ``DenseSampler()``.
        image_size: side of the views in pixels.
        curriculum: temporal windows over the epochs, in ``time_unit``; by default those of
            ``Curriculum()``, which are fractions.
        augmentation: "crop", "crop-flip-jitter", "global", "local", options of ultrasound
            augmentation or a function of one's own; see ``Augmentation``.
        time_unit: unit of times and windows: "fraction" (frame index / number of frames), "frames"
            or "seconds".
        cache_gb: memory for decoded frames, in 10^9 bytes. Other frames are decoded each time.
        seed: seed of all random numbers.

    Raises:
        ValueError: the catalogue is empty, the augmentation or unit is unknown, ``cache_gb`` is
            negative, the unit is seconds and the frame rate of a video is unknown, or the unit is
            not "fraction" and there is no curriculum.
    """

    def __init__(
        self,
        catalog: VideoCatalog,
        sampler: Sampler | None = None,
        *,
        image_size: int = 64,
        curriculum: Curriculum | None = None,
        augmentation: AugmentationOptions | Augment = "crop-flip-jitter",
        time_unit: TimeUnit = "fraction",
        cache_gb: float = 4.0,
        seed: int = 0,
    ) -> None:
        if not len(catalog):
            raise ValueError("catalog must hold at least one video, got none")
        if not cache_gb >= 0:
            raise ValueError(f"cache_gb must be >= 0, got {cache_gb}")
        self.catalog = catalog
        self.sampler = DenseSampler() if sampler is None else sampler
        self.curriculum = curriculum or Curriculum()
        self.augmentation = Augmentation(augmentation, image_size)
        self.cache_bytes = int(cache_gb * 1e9)
        self.seed = seed
        self.num_frames = [entry.num_frames for entry in catalog]
        self.patients = patient_numbers(catalog)
        self.clock = Clock(catalog, time_unit)
        if curriculum is None and time_unit != "fraction":
            raise ValueError(
                f"curriculum must be given with time_unit {time_unit!r}, because the default's "
                "windows are fractions of a video"
            )
        self._store: FrameStore | None = None

    def __len__(self) -> int:
        """Returns the number of batches per epoch, over all processes."""
        return self.sampler.steps(self.num_frames)

    def __repr__(self) -> str:
        size = self.augmentation.image_size
        return (
            f"FrameBatches({len(self)} per epoch, of {len(self.catalog)} videos, at {size}x{size}, "
            f"{self.sampler})"
        )

    def decode(self) -> None:
        """Decodes the videos, as many as ``cache_gb`` allows, unless that has been done."""
        if self._store is None:
            short_side = self.augmentation.short_side
            self._store = FrameStore(self.catalog.entries, short_side, self.cache_bytes)

    def loader(
        self, *, num_workers: int = 0, rank: int = 0, world: int = 1
    ) -> DataLoader[FrameBatch]:
        """Returns the batches of one process, epoch by epoch.

        Call ``loader.sampler.set_epoch(epoch)`` before each epoch, as with PyTorch's
        ``DistributedSampler``: the curriculum and the random numbers depend on it. Lightning calls
        it by itself.

        Args:
            num_workers: processes that make batches; 0 makes them in the calling process.
            rank, world: number of this process, and of all; they take turns at the steps.
        """
        self.decode()  # before any worker starts, so that they share the memory
        return DataLoader(
            self,
            batch_size=None,
            sampler=EpochSteps(len(self), rank=rank, world=world),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=report_errors,
            pin_memory=torch.cuda.is_available(),
        )

    def windows(self, video: Tensor, epoch: int) -> Tensor:
        """Returns the epoch's temporal window for every anchor, for the loss: float32 [N, 2].

        It is the curriculum's window in the unit of the times, kept beyond the positives by
        ``clamp_window``, so short videos have windows of their own.

        Args:
            video: int64 [N], ``FrameBatch.video``.
            epoch: counted from 0.
        """
        rate = torch.from_numpy(self.clock.frames_per_unit)[video.cpu()]
        lo, hi = self.curriculum.window(epoch)
        radius = self.sampler.positive_radius
        bounds = [clamp_window((lo * r, hi * r), radius) for r in rate.tolist()]
        frames = torch.tensor(bounds, dtype=torch.float64).reshape(-1, 2)
        # Times are rounded to float32: a hundredth of a frame keeps the bounds themselves inside.
        frames += torch.tensor([-0.01, 0.01], dtype=torch.float64)
        return (frames / rate[:, None]).float().to(video.device)

    def __getitem__(self, key: tuple[int, int]) -> FrameBatch:
        """Returns the batch of ``(epoch, step)``."""
        epoch, step = key
        lo, hi = self.curriculum.window(epoch)
        windows = [(lo * rate, hi * rate) for rate in self.clock.frames_per_unit.tolist()]
        draw = self.sampler.draw(self.num_frames, windows, seed=self.seed, epoch=epoch, step=step)
        n, k = draw.negatives.shape
        negatives = np.where(draw.negatives == MISSING, draw.anchor[:, None], draw.negatives)
        frames = np.column_stack([draw.anchor, draw.positive, negatives])
        seeds = generator(self.seed, epoch, step, 1).integers(2**63, size=frames.size)
        views = self.augmentation(self._images(draw, frames), seeds.tolist())
        views = views.reshape(n, 2 + k, *views.shape[1:])
        negative_time = self.clock.times(np.repeat(draw.video, k), draw.negatives.reshape(-1))
        return FrameBatch(
            anchor_view=views[:, 0].contiguous(),
            positive_view=views[:, 1].contiguous(),
            negative_view=views[:, 2:].contiguous(),
            video=torch.from_numpy(draw.video),
            time=torch.from_numpy(self.clock.times(draw.video, draw.anchor)).float(),
            patient=torch.from_numpy(self.patients[draw.video]),
            frame=torch.from_numpy(draw.anchor),
            negative_time=torch.from_numpy(negative_time).float().reshape(n, k),
        )

    def _images(self, draw: Draw, frames: np.ndarray) -> list[Tensor]:
        """Returns uint8 [1 or 3, H, W] images of ``frames`` [N, c], with one request per video."""
        self.decode()
        assert self._store is not None
        images: list[Tensor] = [torch.empty(0)] * frames.size
        of_video = np.repeat(draw.video, frames.shape[1])
        for video in np.unique(draw.video):
            places = np.flatnonzero(of_video == video)
            wanted = self._store.frames(int(video), frames.reshape(-1)[places])
            for place, image in zip(places, wanted, strict=True):
                images[place] = image
        return images


class Clock:
    """Times of frames in one unit.

    Attributes:
        frames_per_unit: float64 [V], frames per unit of time in each video (on average where the
            frame rate varies).
    """

    def __init__(self, catalog: VideoCatalog, unit: TimeUnit) -> None:
        lengths = np.array([entry.num_frames for entry in catalog], dtype=np.float64)
        self._seconds: list[np.ndarray | None] = [None] * len(lengths)
        if unit == "fraction":
            self.frames_per_unit = lengths
        elif unit == "frames":
            self.frames_per_unit = np.ones_like(lengths)
        elif unit == "seconds":
            unknown = [entry.id for entry in catalog if entry.frame_rate is None]
            if unknown:
                raise ValueError(
                    "time_unit must be 'fraction' or 'frames', because the frame rate is unknown "
                    f"for {len(unknown)} videos such as {unknown[0]}, got 'seconds' (they are "
                    f"{', '.join(unknown[:MOST_NAMES])}{', ...' * (len(unknown) > MOST_NAMES)})"
                )
            self.frames_per_unit = np.array([entry.frame_rate for entry in catalog], np.float64)
            self._seconds = [entry.open().times for entry in catalog]
        else:
            raise ValueError(f"time_unit must be 'fraction', 'frames' or 'seconds', got {unit!r}")

    def times(self, video: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """Returns the times of frames as float64 [N], NaN where the frame is missing."""
        times = frame / self.frames_per_unit[video]
        for i, (v, f) in enumerate(zip(video, frame, strict=True)):
            seconds = self._seconds[v]
            if seconds is not None:
                times[i] = seconds[f]
        times[frame == MISSING] = np.nan
        return times


class EpochSteps(DistributedSampler[tuple[int, int]]):
    """The (epoch, step) pairs of one process.

    It is a DistributedSampler because Lightning calls the ``set_epoch`` of one and leaves it in
    place. Several processes take turns at the steps, and the last turn is filled up.

    Args:
        steps: batches per epoch, over all processes.
        rank, world: number of this process, and of all.

    Warns:
        UserWarning: an epoch's batches are drawn again, because ``set_epoch`` was not called.
    """

    def __init__(self, steps: int, *, rank: int = 0, world: int = 1) -> None:
        super().__init__(range(steps), num_replicas=world, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.steps = steps
        self._drawn: int | None = None

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        if self._drawn == epoch:  # checked at the first step: data loaders discard some iterators
            warnings.warn(
                f"the batches of epoch {epoch} are drawn again: call "
                "loader.sampler.set_epoch(epoch) before each epoch",
                stacklevel=2,
            )
        self._drawn = epoch
        for turn in range(len(self)):
            yield epoch, (turn * self.num_replicas + self.rank) % self.steps

    def __len__(self) -> int:
        return -(-self.steps // self.num_replicas)


def patient_numbers(catalog: VideoCatalog) -> np.ndarray:
    """Returns int64 [V]: one number per known patient, -1 where unknown."""
    known = [entry.group for entry in catalog if entry.patient_known]
    number = {group: i for i, group in enumerate(dict.fromkeys(known))}
    return np.array(
        [number[entry.group] if entry.patient_known else -1 for entry in catalog], dtype=np.int64
    )
