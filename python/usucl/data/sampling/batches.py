"""Batches for training: sampled frames, resized and augmented, with their times and patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from usucl.data.augmentation import Augment, Augmentation, AugmentationOptions
from usucl.data.catalog.catalog import VideoCatalog
from usucl.data.sampling.balance import generator
from usucl.data.sampling.batch import BatchPart, FrameBatch, check_shares, rows_of
from usucl.data.sampling.candidates import (
    VideoTraits,
    anchor_windows,
    gap_in_frames,
    times_in_frames,
)
from usucl.data.sampling.clock import MISSING, Clock, TimeUnit, patient_numbers
from usucl.data.sampling.curriculum import Curriculum, Window
from usucl.data.sampling.guard import PixelGuard, thumbnails, without_conflict
from usucl.data.sampling.parts import PartBounds
from usucl.data.sampling.samplers import DenseSampler, Draw, Sampler, anchor_conflicts
from usucl.data.sampling.steps import EpochSteps, Key, ShareOfBatches
from usucl.data.sampling.workers import begin, check_context
from usucl.data.store import FrameStore, StorePlan

FRAMES_AT_ONCE = 256  # of a video, for the thumbnails of the pixel guard


class FrameBatches(Dataset[FrameBatch]):
    """The training batches of a catalogue, by (epoch, step); they need no training framework.

    The sampler decides what a batch holds: one anchor per video with sampled negatives
    (``FrameSampler``), or many anchors per video, whose negatives the loss finds in the batch
    (``DenseSampler``). A batch is a pure function of (seed, epoch, step): the number of workers,
    how they are started, and the number of processes do not change it. In a training loop of one's
    own::

        batches = FrameBatches(VideoCatalog.scan("videos"))
        loader = batches.loader(num_workers=4)
        for epoch in range(epochs):
            loader.sampler.set_epoch(epoch)
            for batch in loader:
                window = batches.windows(batch.video, epoch, batch.frame)

    Args:
        catalog: the videos to train on.
        sampler: draws the frames; by default ``DenseSampler()``.
        image_size: side of the views in pixels.
        channels: 3, or 1 for grey views.
        curriculum: temporal windows over the epochs, in ``time_unit``; by default those of
            ``Curriculum()``, which are fractions.
        augmentation: "crop", "crop-flip-jitter", "global", "local", options of ultrasound
            augmentation or a function of one's own; see ``Augmentation``.
        time_unit: unit of times and windows: "fraction" (frame index / number of frames), "frames"
            or "seconds". In seconds, frames are where the video says, even if its rate varies.
        min_gap: least time, in ``time_unit``, from the farthest possible positive of an anchor to
            its nearest intra-video negative; one frame at least.
        guard: greatest Pearson correlation of 16 x 16 grey thumbnails of an anchor and its
            intra-video negatives; frames of a video that are more alike are no negatives of each
            other. None for no such limit.
        cache_gb: greatest size of the stored decoded frames, in 10^9 bytes, see ``FrameStore``.
            Other frames are decoded each time.
        seed: seed of all random numbers.

    Attributes:
        narrowed: for a curriculum that is driven by hardness, the epochs at which it has gone on to
            its next window. Whoever trains adds them; see :meth:`Curriculum.window`.

    Raises:
        ValueError: the catalogue is empty, the augmentation or unit is unknown, ``cache_gb`` or
            ``min_gap`` is negative, ``guard`` is no correlation, the unit is seconds and the frame
            rate of a video is unknown, or the unit is not "fraction" and there is no curriculum.
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
        seed: int = 0,
    ) -> None:
        if not len(catalog):
            raise ValueError("catalog must hold at least one video, got none")
        if not cache_gb >= 0:
            raise ValueError(f"cache_gb must be >= 0, got {cache_gb}")
        if not 0 <= min_gap < float("inf"):
            raise ValueError(f"min_gap must be finite and >= 0, got {min_gap}")
        if guard is not None and not -1 <= guard <= 1:
            raise ValueError(f"guard must be a correlation in [-1, 1], got {guard}")
        self.catalog = catalog
        self.sampler = DenseSampler() if sampler is None else sampler
        self.curriculum = curriculum or Curriculum()
        self.augmentation = Augmentation(augmentation, image_size, channels)
        self.cache_bytes = int(cache_gb * 1e9)
        self.seed = seed
        self.num_frames = [entry.num_frames for entry in catalog]
        self.patients = patient_numbers(catalog)
        self._parts = PartBounds(catalog.entries)
        self.clock = Clock(catalog, time_unit)
        gaps = [gap_in_frames(min_gap, rate) for rate in self.clock.frames_per_unit.tolist()]
        self.traits = VideoTraits(self.patients, np.array(gaps), self.clock.positions)
        self.guard = guard
        self.narrowed: tuple[int, ...] = ()
        if curriculum is None and time_unit != "fraction":
            raise ValueError(
                f"curriculum must be given with time_unit {time_unit!r}, because the default's "
                "windows are fractions of a video"
            )
        self._store: FrameStore | None = None

    def __len__(self) -> int:
        """Returns the number of batches per epoch, over all processes."""
        return self.sampler.steps(self.num_frames, **self._needed_traits())

    def __repr__(self) -> str:
        size = self.augmentation.image_size
        return (
            f"FrameBatches({len(self)} per epoch, of {len(self.catalog)} videos, at {size}x{size}, "
            f"{self.sampler})"
        )

    def decode(self, store: FrameStore | None = None) -> None:
        """Decodes the videos, as many as ``cache_gb`` allows, unless that has been done.

        Args:
            store: frames of these videos to take instead, at the short side of the augmentation.
        """
        if self._store is not None:
            return
        plan, short_side = self.store_plan(), self.augmentation.short_side
        self._store = store or FrameStore(
            self.catalog.entries, short_side, self.cache_bytes, plan=plan
        )
        if self.guard is not None:
            guard = PixelGuard(self.guard, map(self._thumbnails, range(len(self.catalog))))
            self.traits = self.traits._replace(guard=guard)

    def store_plan(self) -> StorePlan:
        """Returns which videos :meth:`decode` is going to store, and how large they will be."""
        return StorePlan.of(self.catalog.entries, self.augmentation.short_side, self.cache_bytes)

    def loader(
        self,
        *,
        num_workers: int = 0,
        multiprocessing_context: str | None = None,
        rank: int = 0,
        world: int = 1,
        split: bool = False,
        whole: bool = False,
    ) -> DataLoader[Any]:
        """Returns the batches of one process, epoch by epoch.

        Call ``loader.sampler.set_epoch(epoch)`` before each epoch, as with PyTorch's
        ``DistributedSampler``: the curriculum and the random numbers depend on it. Lightning calls
        it by itself.

        Several processes see the batches that one process sees. By default they take turns at the
        steps: process ``r`` has the steps r, r + world, ... of one process, and the last turn is
        filled up with the first steps. With ``split``, they share every batch: each has whole
        videos of it, process ``r`` the r-th, (r + world)-th, ...

        Args:
            num_workers: processes that make batches; 0 makes them in the calling process.
            multiprocessing_context: how workers are started: "fork", "spawn" or "forkserver"; by
                default as Python does it. With the latter two, a script needs
                ``if __name__ == "__main__":``, and a sampler or an augmentation of one's own must
                be defined at the top of a module.
            rank, world: number of this process, and of all.
            split: share every batch instead of taking turns.
            whole: with ``split``, give every process a ``BatchPart``, which says what the whole
                batch is.

        Raises:
            ValueError: workers cannot be started so, the sampler or the augmentation cannot be sent
                to them, or a batch has fewer videos than there are processes to share it.
        """
        if num_workers > 0:
            own = {"sampler": self.sampler, "augmentation": self.augmentation.transform}
            check_context(multiprocessing_context, **own)
        self.decode()  # before any worker starts, so that they share the memory
        data: Dataset[Any] = self
        if split:
            last = self.draw(0, len(self) - 1, guarded=False)  # samplers have no smaller batch
            check_shares(len(np.unique(last.video)), world)
            data = ShareOfBatches(self, rank, world, whole=whole)
        return DataLoader(
            data,
            batch_size=None,
            sampler=EpochSteps(
                len(self),
                rank=0 if split else rank,
                world=1 if split else world,
                narrowed=self._narrowed if self.curriculum.kind == "hardness" else None,
            ),
            num_workers=num_workers,
            multiprocessing_context=multiprocessing_context if num_workers > 0 else None,
            persistent_workers=num_workers > 0,
            worker_init_fn=begin,
            # Of its own, for it draws a seed at each epoch, which no batch depends on.
            generator=torch.Generator().manual_seed(self.seed % 2**63),
            pin_memory=torch.cuda.is_available(),
        )

    def window(self, epoch: int) -> Window:
        """Returns the curriculum's (lo, hi) at ``epoch``, in the unit of the times."""
        return self.curriculum.window(epoch, self.narrowed)

    def windows(self, video: Tensor, epoch: int, frame: Tensor | None = None) -> Tensor:
        """Returns the epoch's temporal window for every anchor, for the loss: float32 [N, 2].

        It is the curriculum's window in the unit of the times, kept beyond the positives by
        ``clamp_window``, so short videos have windows of their own.

        Args:
            video: int64 [N], ``FrameBatch.video``.
            epoch: counted from 0.
            frame: int64 [N], ``FrameBatch.frame``. It matters for videos whose frame rate varies:
                without it, their frames count as evenly spaced.
        """
        numbers = video.cpu().numpy()
        frames = anchor_windows(
            numbers,
            None if frame is None else frame.cpu().numpy(),
            self._in_frames(self.window(epoch)),
            self.sampler.positive_radius,
            self.traits,
        )
        rate = self.clock.frames_per_unit[numbers, None]
        return torch.from_numpy(frames / rate).float().to(video.device)

    def refused(self, epoch: int) -> np.ndarray:
        """Returns what the pixel guard refuses at ``epoch``: int64 [V, 2].

        For every video, these are the number of pairs of an anchor and another frame inside its
        window, over all frames, and how many of them are alike. It is a fact about the videos, and
        the same for every seed; without a guard nothing is alike.
        """
        self.decode()
        windows = self._in_frames(self.window(epoch))
        counts = np.zeros((len(self.catalog), 2), dtype=np.int64)
        guard, radius = self.traits.guard, self.sampler.positive_radius
        for video, n in enumerate(self.num_frames if guard else []):
            assert guard is not None
            frame = np.arange(n)
            window = anchor_windows(np.full(n, video), frame, windows, radius, self.traits)
            counts[video] = guard.refused(video, times_in_frames(video, frame, self.traits), window)
        return counts

    def draw(
        self, epoch: int, step: int, window: Window | None = None, *, guarded: bool = True
    ) -> Draw:
        """Returns the frames of a batch.

        Args:
            epoch, step: which batch.
            window: in the unit of the times; by default the curriculum's.
            guarded: whether the pixel guard acts, for which the videos must be decoded.
        """
        if guarded and self.guard is not None:
            self.decode()
        drawn = self.sampler.draw(
            self.num_frames,
            self._in_frames(self.window(epoch) if window is None else window),
            seed=self.seed,
            epoch=epoch,
            step=step,
            **self._needed_traits(),
        )
        if self.sampler.positive_radius >= max(self.num_frames):
            return drawn  # any frame of a video is a positive, of whichever clip
        return self._parts.keep_positives_within(drawn)

    def __getitem__(self, key: Key) -> FrameBatch:
        """Returns the batch of ``(epoch, step)``; a third number is ``narrowed`` at that time."""
        return self.share(key, 0, 1)

    def part(self, key: Key, rank: int, world: int) -> BatchPart:
        """Returns the images of :meth:`share`, and what the whole batch is; the same arguments."""
        whole = self.share(key, 0, 1, images=False)
        video = whole.video.numpy()
        rows = [torch.from_numpy(rows_of(video, other, world)) for other in range(world)]
        return BatchPart.of(whole, self.share(key, rank, world), rows, rank)

    def share(self, key: Key, rank: int, world: int, *, images: bool = True) -> FrameBatch:
        """Returns what one of several processes has of a batch: every ``world``-th of its videos.

        Args:
            key: see :meth:`__getitem__`.
            rank, world: number of the process, and of all.
            images: make the images; otherwise they have no pixels.
        """
        self.decode()
        epoch, step, *rest = key
        window = self.curriculum.window(epoch, *(rest or [self.narrowed]))
        draw = self.draw(epoch, step, window)
        n, k = draw.negatives.shape
        positives = draw.positive.reshape(n, -1)
        negatives = np.where(draw.negatives == MISSING, draw.anchor[:, None], draw.negatives)
        frames = np.column_stack([draw.anchor, positives, negatives])
        seeds = generator(self.seed, epoch, step, 1).integers(2**63, size=frames.size)
        time = self.clock.times(draw.video, draw.anchor)
        shown = self.clock.times(np.repeat(draw.video, positives.shape[1]), positives.reshape(-1))
        offset = (shown.reshape(positives.shape) - time[:, None]).reshape(draw.positive.shape)
        time[self._without_time(draw, window)] = np.nan
        if world > 1:
            check_shares(len(np.unique(draw.video)), world)
            rows = rows_of(draw.video, rank, world)
            seeds = seeds.reshape(frames.shape)[rows].reshape(-1)
            frames, time, offset, n = frames[rows], time[rows], offset[rows], len(rows)
            draw = Draw(*(column[rows] for column in draw))
        views = torch.empty(frames.size, 3, 0, 0)
        if images:
            views = self.augmentation(self._images(draw, frames), seeds.tolist())
        views = views.reshape(*frames.shape, *views.shape[1:])
        negative_time = self.clock.times(np.repeat(draw.video, k), draw.negatives.reshape(-1))
        first = 1 + positives.shape[1]
        return FrameBatch(
            anchor_view=views[:, 0].contiguous(),
            positive_view=(views[:, 1] if first == 2 else views[:, 1:first]).contiguous(),
            negative_view=views[:, first:].contiguous(),
            video=torch.from_numpy(draw.video),
            time=torch.from_numpy(time).float(),
            patient=torch.from_numpy(self.patients[draw.video]),
            frame=torch.from_numpy(draw.anchor),
            negative_time=torch.from_numpy(negative_time).float().reshape(n, k),
            positive_offset=torch.from_numpy(offset).float(),
        )

    def _needed_traits(self) -> dict[str, Any]:
        """Returns the keyword argument of the sampler, where there is anything to tell it.

        So samplers of one's own need to know of traits only if they are used with such options.
        """
        traits = self.traits
        needed = (
            traits.guard is not None
            or bool((traits.gap > 1).any())
            or any(position is not None for position in traits.position)
            or getattr(self.sampler, "balance", "video") != "video"
        )
        return {"traits": traits} if needed else {}

    def _in_frames(self, window: Window) -> Sequence[Window]:
        """Returns the window in the frames of every video."""
        lo, hi = window
        return [(lo * rate, hi * rate) for rate in self.clock.frames_per_unit.tolist()]

    def _without_time(self, draw: Draw, window: Window) -> np.ndarray:
        """Returns the rows that would be negatives of others of their video although alike."""
        lost = np.zeros(len(draw.video), dtype=bool)
        if self.traits.guard is None:
            return lost
        shown = np.column_stack([draw.anchor, draw.positive])
        windows, radius = self._in_frames(window), self.sampler.positive_radius
        for video in np.unique(draw.video):
            rows = np.flatnonzero(draw.video == video)
            conflict = anchor_conflicts(shown[rows], int(video), windows, radius, self.traits)
            lost[rows] = ~without_conflict(conflict)
        return lost

    def _narrowed(self) -> tuple[int, ...]:
        return self.narrowed

    def _thumbnails(self, video: int) -> Tensor:
        assert self._store is not None
        n = self.num_frames[video]
        parts = [range(i, min(i + FRAMES_AT_ONCE, n)) for i in range(0, n, FRAMES_AT_ONCE)]
        return torch.cat([thumbnails(self._store.frames(video, part)) for part in parts])

    def _images(self, draw: Draw, frames: np.ndarray) -> list[Tensor]:
        """Returns uint8 [1 or 3, H, W] images of ``frames`` [N, c], with one request per video."""
        assert self._store is not None
        images: list[Tensor] = [torch.empty(0)] * frames.size
        of_video = np.repeat(draw.video, frames.shape[1])
        for video in np.unique(draw.video):
            places = np.flatnonzero(of_video == video)
            wanted = self._store.frames(int(video), frames.reshape(-1)[places])
            for place, image in zip(places, wanted, strict=True):
                images[place] = image
        return images
