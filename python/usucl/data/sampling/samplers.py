"""Samplers of the frames of a batch: pure functions of (seed, epoch, step), without state to save.

A resumed run, another number of workers or another process draws the same frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

MISSING = -1


class Draw(NamedTuple):
    """The frames of one batch, int64: indices of videos and, within each, of frames."""

    video: np.ndarray  # [N]
    anchor: np.ndarray  # [N]
    positive: np.ndarray  # [N]
    negatives: np.ndarray  # [N, k], -1 where the video has no frame inside the window


class Sampler(Protocol):
    """Draws the frames of every batch; a pure function of its arguments."""

    @property
    def positive_radius(self) -> int:
        """Greatest distance of a positive from its anchor, in frames."""

    def steps(self, num_frames: Sequence[int]) -> int:
        """Returns the batches per epoch over videos of the given lengths."""

    def draw(
        self,
        num_frames: Sequence[int],
        windows: Sequence[tuple[float, float]],
        *,
        seed: int,
        epoch: int,
        step: int,
    ) -> Draw:
        """Draws the batch of (seed, epoch, step); ``windows`` (in frames) are one per video."""


def generator(*key: int) -> np.random.Generator:
    """Returns a generator that depends on nothing but ``key`` (non-negative integers)."""
    return np.random.default_rng(key)


def positive_candidates(num_frames: int, anchor: int, radius: int) -> np.ndarray:
    """Returns the other frames within ``radius`` of the anchor, int64; the anchor if there is none.

    With radius 0 the positive is the anchor's own frame under another augmentation.
    """
    near = np.arange(max(0, anchor - radius), min(num_frames, anchor + radius + 1))
    others = near[near != anchor]
    return others if len(others) else np.array([anchor])


def clamp_window(window: tuple[float, float], radius: int) -> tuple[float, float]:
    """Returns (lo, hi) in frames, kept beyond the positives even in short videos.

    The paper's code keeps lo >= 4 and hi >= 6 frames for positives within 3 frames, that is
    lo >= radius + 1 and hi >= radius + 3.
    """
    return max(window[0], radius + 1), max(window[1], radius + 3)


def negative_candidates(
    num_frames: int, anchor: int, window: tuple[float, float], radius: int
) -> np.ndarray:
    """Returns the frames inside the temporal window on both sides of the anchor, int64, ascending.

    With (lo, hi) = clamp_window(window, radius), in frames, a distance d counts if

        before the anchor: floor(lo) <  d <= floor(hi)
        after the anchor:  floor(lo) <= d <  ceil(hi)

    The asymmetry is that of the official code, kept so that the draws are equal.

    Args:
        num_frames: n, the length of the video.
        anchor: frame index in [0, n).
        window: (lo, hi) in frames; for a fraction of the length, multiply by n.
        radius: greatest distance of a positive, in frames.
    """
    lo, hi = clamp_window(window, radius)
    before = np.arange(max(0, anchor - math.floor(hi)), max(0, anchor - math.floor(lo)))
    after = np.arange(anchor + math.floor(lo), min(num_frames, anchor + math.ceil(hi)))
    return np.concatenate([before, after])


@dataclass(frozen=True)
class FrameSampler:
    """The paper's batch: one anchor per video, a near positive, k negatives of the same video.

    Basu et al. 2022, section 2. The anchor index is uniform in [0.2 n, 0.5 n), the positive uniform
    within ``positive_radius`` frames, the negatives uniform with replacement inside the window. One
    epoch visits every video once, in random order, spread evenly over its batches.

    Args:
        batch_videos: videos, and so anchors, per batch at most; batches of two may take a third
            video, because batch normalisation cannot work on a leftover batch of one.
        negatives: k, intra-video negatives per anchor.
        positive_radius: greatest distance of the positive, in frames.
        anchor_range: bounds of the anchor as shares of the video's length.
    """

    batch_videos: int = 32
    negatives: int = 3
    positive_radius: int = 3
    anchor_range: tuple[float, float] = (0.2, 0.5)

    def __post_init__(self) -> None:
        _at_least(1, batch_videos=self.batch_videos)
        _at_least(0, negatives=self.negatives, positive_radius=self.positive_radius)
        if not 0 <= self.anchor_range[0] < self.anchor_range[1] <= 1:
            raise ValueError(
                f"anchor_range must be shares 0 <= lo < hi <= 1, got {self.anchor_range}"
            )

    def steps(self, num_frames: Sequence[int]) -> int:
        """Batches per epoch over videos of the given lengths."""
        steps = -(-len(num_frames) // self.batch_videos)
        return steps if self.batch_videos == 1 else max(1, min(steps, len(num_frames) // 2))

    def anchors(self, num_frames: int) -> range:
        """Returns the possible indices of an anchor among ``num_frames`` frames; never empty."""
        first = int(self.anchor_range[0] * num_frames)
        return range(first, max(first + 1, math.ceil(self.anchor_range[1] * num_frames)))

    def draw(
        self,
        num_frames: Sequence[int],
        windows: Sequence[tuple[float, float]],
        *,
        seed: int,
        epoch: int,
        step: int,
    ) -> Draw:
        """Draws the batch of (seed, epoch, step); ``windows`` (in frames) are one per video."""
        order = generator(seed, epoch).permutation(len(num_frames))
        videos = np.array_split(order, self.steps(num_frames))[step]
        rng = generator(seed, epoch, step, 0)
        anchors = np.empty(len(videos), dtype=np.int64)
        positives = np.empty(len(videos), dtype=np.int64)
        negatives = np.full((len(videos), self.negatives), MISSING, dtype=np.int64)
        for row, video in enumerate(videos):
            n = num_frames[video]
            anchors[row] = anchor = int(rng.choice(self.anchors(n)))
            positives[row] = rng.choice(positive_candidates(n, anchor, self.positive_radius))
            inside = negative_candidates(n, anchor, windows[video], self.positive_radius)
            if len(inside):
                negatives[row] = rng.choice(inside, self.negatives)
        return Draw(videos.astype(np.int64), anchors, positives, negatives)


@dataclass(frozen=True)
class DenseSampler:
    """Many anchors per video: every frame of the batch is anchor, positive and, by mask, negative.

    A batch holds ``videos`` distinct videos (fewer if there are not as many) with ``frames``
    anchors each. A video's anchors are a stratified sample: one uniform draw in each of ``frames``
    equal parts. Steps go through the videos in one random permutation after another, so that no
    video is seen much more often than another, however long it is.

    Args:
        videos, frames: V and F; a batch has N = V F anchors, sorted by video.
        positive_radius: greatest distance of the positive in frames; 0 takes the same frame.
        steps_per_epoch: by default the number of batches that the frames of all videos fill.
    """

    videos: int = 8
    frames: int = 16
    positive_radius: int = 3
    steps_per_epoch: int | None = None

    def __post_init__(self) -> None:
        _at_least(1, videos=self.videos, frames=self.frames)
        _at_least(0, positive_radius=self.positive_radius)
        if self.steps_per_epoch is not None:
            _at_least(1, steps_per_epoch=self.steps_per_epoch)

    def steps(self, num_frames: Sequence[int]) -> int:
        """Batches per epoch over videos of the given lengths."""
        if self.steps_per_epoch is not None:
            return self.steps_per_epoch
        return -(-sum(num_frames) // (min(self.videos, len(num_frames)) * self.frames))

    def draw(
        self,
        num_frames: Sequence[int],
        windows: Sequence[tuple[float, float]],
        *,
        seed: int,
        epoch: int,
        step: int,
    ) -> Draw:
        """Draws the batch of (seed, epoch, step); ``windows`` act in the loss, not here."""
        videos = self._videos(len(num_frames), seed, epoch, step)
        rng = generator(seed, epoch, step, 0)
        lengths = np.asarray(num_frames, dtype=np.int64)[videos]
        part = np.arange(self.frames) + rng.random((len(videos), self.frames))
        anchors = (part / self.frames * lengths[:, None]).astype(np.int64)
        anchors = np.minimum(anchors, lengths[:, None] - 1).reshape(-1)
        positives = np.array(
            [
                rng.choice(positive_candidates(int(n), int(anchor), self.positive_radius))
                for n, anchor in zip(np.repeat(lengths, self.frames), anchors, strict=True)
            ]
        )
        nothing = np.empty((len(anchors), 0), dtype=np.int64)
        return Draw(np.repeat(videos, self.frames), anchors, positives, nothing)

    def _videos(self, available: int, seed: int, epoch: int, step: int) -> np.ndarray:
        """Returns int64 [V]: the step's part of a permutation, which wraps around in the last."""
        count = min(self.videos, available)
        steps = -(-available // count)
        order = generator(seed, epoch, step // steps, 1).permutation(available)
        return np.resize(order, steps * count).reshape(steps, count)[step % steps]


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
