"""Batches of frames: altered ones with their classes for training, central ones for tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from usucl.data import Augmentation, FrameStore, normalise
from usucl.embedding import evenly_spaced
from usucl.evaluation.probes import IntArray
from usucl.finetuning.config import FinetuningConfig
from usucl.finetuning.labels import Labelled

TEST_BATCH = 64  # frames encoded at once, without gradients


class Frames:
    """The stored frames of all labelled videos, decoded once for all folds.

    Args:
        found: the videos.
        config: the options.
        image_size: side S of the images in pixels.

    Raises:
        VideoError: a video can no longer be read.
    """

    def __init__(self, found: Labelled, config: FinetuningConfig, image_size: int) -> None:
        self.found, self.config, self.image_size = found, config, image_size
        limit = int(config.cache_gb * 1e9)
        self.central = FrameStore(found.entries, image_size, limit)
        self.augment, self.larger = None, self.central
        if config.augmentation is not None:
            self.augment = Augmentation(config.augmentation, image_size)
            if self.augment.short_side != image_size:
                self.larger = FrameStore(found.entries, self.augment.short_side, limit)

    def training(self, videos: IntArray, fold: int, epoch: int) -> DataLoader[tuple[Tensor, ...]]:
        """Returns the batches of one epoch, ``(images [B, 3, S, S], classes [B])``.

        They depend on nothing but the seed, the fold and the epoch.
        """
        rng = np.random.default_rng((self.config.seed, fold, epoch))
        samples = np.array(
            [
                (v, self.found.frames[v][i], self.found.targets[v][i])
                for v in videos.tolist()
                for i in _drawn(len(self.found.frames[v]), self.config.frames_per_video, rng)
            ]
        )
        rng.shuffle(samples)
        seeds = rng.integers(2**31, size=len(samples))
        # Equal parts, for batch normalisation cannot be trained on one frame.
        parts = np.array_split(np.arange(len(samples)), -(-len(samples) // self.config.batch_size))
        return self._loader(_Altered(self, [(samples[part], seeds[part]) for part in parts]))

    def steps(self, videos: IntArray) -> int:
        """Returns the number of batches of an epoch."""
        limit = self.config.frames_per_video
        each = (len(self.found.frames[v]) for v in videos.tolist())
        frames = sum(n if limit is None else min(n, limit) for n in each)
        return -(-frames // self.config.batch_size)

    def tested(self, videos: IntArray) -> IntArray:
        """Returns the frames that are tested, ``[n, 3]``: video, frame number and class."""
        limit = self.config.test_frames_per_video
        return np.array(
            [
                (v, self.found.frames[v][i], self.found.targets[v][i])
                for v in videos.tolist()
                for i in evenly_spaced(len(self.found.frames[v]), limit)
            ],
            dtype=np.int64,
        ).reshape(-1, 3)

    def test(self, samples: IntArray) -> DataLoader[tuple[Tensor, ...]]:
        """Returns batches of the central squares of frames, in order, with their classes."""
        starts = range(0, len(samples), TEST_BATCH)
        return self._loader(_Central(self, [samples[i : i + TEST_BATCH] for i in starts]))

    def _loader(self, batches: Dataset[tuple[Tensor, ...]]) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(batches, batch_size=None, num_workers=self.config.num_workers)

    def squares(self, samples: IntArray) -> Tensor:
        """Returns normalised central squares ``[n, 3, S, S]`` of frames."""
        from torchvision.transforms.v2 import functional as F

        size = self.image_size
        images = torch.empty(len(samples), 3, size, size)
        for v in np.unique(samples[:, 0]).tolist():
            rows = np.flatnonzero(samples[:, 0] == v)
            frames = self.central.frames(v, samples[rows, 1])
            images[torch.from_numpy(rows)] = normalise(F.center_crop(frames, [size, size]))
        return images


class _Altered(Dataset[tuple[Tensor, ...]]):
    def __init__(self, frames: Frames, batches: Sequence[tuple[IntArray, IntArray]]) -> None:
        self.frames, self.batches = frames, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        samples, seeds = self.batches[index]
        frames, target = self.frames, torch.from_numpy(samples[:, 2].copy())
        if frames.augment is None:
            return frames.squares(samples), target
        images = [frames.larger.frames(int(v), [int(f)])[0] for v, f, _ in samples]
        return frames.augment(images, seeds.tolist()), target


class _Central(Dataset[tuple[Tensor, ...]]):
    def __init__(self, frames: Frames, batches: Sequence[IntArray]) -> None:
        self.frames, self.batches = frames, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        samples = self.batches[index]
        return self.frames.squares(samples), torch.from_numpy(samples[:, 2].copy())


def _drawn(count: int, limit: int | None, rng: np.random.Generator) -> Iterator[int]:
    """Yields one position of each of ``limit`` equal parts of ``count``, or all of them."""
    if limit is None or limit >= count:
        yield from range(count)
        return
    edges = np.linspace(0, count, limit + 1).astype(int)
    for low, high in itertools.pairwise(edges):
        yield int(rng.integers(low, high))
