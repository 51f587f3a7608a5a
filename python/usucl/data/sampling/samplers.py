"""Samplers of the frames of a batch: pure functions of (seed, epoch, step), without state to save.

A resumed run, another number of workers or another process draws the same frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from usucl.data.sampling.balance import (
    Balance,
    check_balance,
    drawn_videos,
    generator,
    most_videos,
    taking_turns,
)
from usucl.data.sampling.candidates import (
    VideoTraits,
    anchor_windows,
    negative_candidates,
    positive_candidates,
    timed_negative_candidates,
    times_in_frames,
)
from usucl.data.sampling.clock import MISSING
from usucl.data.sampling.guard import conflicts, without_conflict

TRIES = 16  # of the dense sampler, to find an anchor that looks like no other of its video


class Draw(NamedTuple):
    """The frames of one batch, int64: indices of videos and, within each, of frames."""

    video: np.ndarray  # [N]
    anchor: np.ndarray  # [N]
    positive: np.ndarray  # [N], or [N, R] for several positives per anchor
    negatives: np.ndarray  # [N, k], -1 where the video has no frame inside the window


class Sampler(Protocol):
    """Draws the frames of every batch; a pure function of its arguments.

    ``traits`` are given only where they matter: frames must be kept apart by time or by their
    looks, or the sampler has a ``balance`` of ``"patient"``.
    """

    @property
    def positive_radius(self) -> int:
        """Greatest distance of a positive from its anchor, in frames."""

    def steps(self, num_frames: Sequence[int], traits: VideoTraits | None = None) -> int:
        """Returns the batches per epoch over videos of the given lengths."""

    def draw(
        self,
        num_frames: Sequence[int],
        windows: Sequence[tuple[float, float]],
        *,
        seed: int,
        epoch: int,
        step: int,
        traits: VideoTraits | None = None,
    ) -> Draw:
        """Draws the batch of (seed, epoch, step); ``windows`` (in frames) are one per video."""


@dataclass(frozen=True)
class FrameSampler:
    """The paper's batch: one anchor per video, a near positive, k negatives of the same video.

    Basu et al. 2022, section 2. The anchor index is uniform in [0.2 n, 0.5 n), the positive uniform
    within ``positive_radius`` frames, the negatives uniform with replacement inside the window. One
    epoch visits every video once, in random order, spread evenly over its batches; with another
    balance, it has as many anchors, but draws videos again for every batch.

    Args:
        batch_videos: videos, and so anchors, per batch at most; batches of two may take a third
            video, because batch normalisation cannot work on a leftover batch of one.
        negatives: k, intra-video negatives per anchor.
        positive_radius: greatest distance of the positive, in frames.
        anchor_range: bounds of the anchor as shares of the video's length.
        positives: R, positives per anchor, distinct if there are as many frames.
        balance: what is drawn equally often: every ``"video"``, ``"patient"`` or ``"frame"``.
    """

    batch_videos: int = 32
    negatives: int = 3
    positive_radius: int = 3
    anchor_range: tuple[float, float] = (0.2, 0.5)
    positives: int = 1
    balance: Balance = "video"

    def __post_init__(self) -> None:
        _at_least(1, batch_videos=self.batch_videos, positives=self.positives)
        _at_least(0, negatives=self.negatives, positive_radius=self.positive_radius)
        check_balance(self.balance)
        if not 0 <= self.anchor_range[0] < self.anchor_range[1] <= 1:
            raise ValueError(
                f"anchor_range must be shares 0 <= lo < hi <= 1, got {self.anchor_range}"
            )

    def steps(self, num_frames: Sequence[int], traits: VideoTraits | None = None) -> int:
        """Batches per epoch over videos of the given lengths."""
        if self.balance != "video":
            return -(-len(num_frames) // self._count(num_frames, traits))
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
        traits: VideoTraits | None = None,
    ) -> Draw:
        """Draws the batch of (seed, epoch, step); ``windows`` (in frames) are one per video."""
        if self.balance == "video":
            order = generator(seed, epoch).permutation(len(num_frames))
            videos = np.array_split(order, self.steps(num_frames))[step]
        else:
            count = self._count(num_frames, traits)
            place = {"seed": seed, "epoch": epoch, "step": step}
            videos = drawn_videos(self.balance, num_frames, traits, count, **place)
        rng = generator(seed, epoch, step, 0)
        anchors = np.empty(len(videos), dtype=np.int64)
        positives = np.empty((len(videos), self.positives), dtype=np.int64)
        negatives = np.full((len(videos), self.negatives), MISSING, dtype=np.int64)
        for row, video in enumerate(videos):
            n = num_frames[video]
            anchors[row] = anchor = int(rng.choice(self.anchors(n)))
            positives[row] = _positives(rng, n, anchor, self.positive_radius, self.positives)
            inside = self._negatives(n, video, anchor, windows[video], traits)
            if len(inside):
                negatives[row] = rng.choice(inside, self.negatives)
        return Draw(videos.astype(np.int64), anchors, _squeezed(positives), negatives)

    def _count(self, num_frames: Sequence[int], traits: VideoTraits | None) -> int:
        """Returns the videos of every batch, where they are drawn again for each."""
        return min(self.batch_videos, most_videos(self.balance, num_frames, traits))

    def _negatives(
        self,
        n: int,
        video: int,
        anchor: int,
        window: tuple[float, float],
        traits: VideoTraits | None,
    ) -> np.ndarray:
        """Returns the frames that may be negatives: inside the window, and not like the anchor."""
        if traits is None:
            return negative_candidates(n, anchor, window, self.positive_radius)
        gap, position, guard = int(traits.gap[video]), traits.position[video], traits.guard
        if position is None:
            inside = negative_candidates(n, anchor, window, self.positive_radius, gap)
        else:
            inside = timed_negative_candidates(position, anchor, window, self.positive_radius, gap)
        if guard is not None and len(inside):
            inside = inside[~guard.alike(video, np.array([anchor]), inside)[0]]
        return inside


@dataclass(frozen=True)
class DenseSampler:
    """Many anchors per video: every frame of the batch is anchor, positive and, by mask, negative.

    A batch holds ``videos`` distinct videos (fewer if there are not as many) with ``frames``
    anchors each. A video's anchors are a stratified sample: one uniform draw in each of ``frames``
    equal parts. Steps go through the videos in one random permutation after another, so that no
    video is seen much more often than another, however long it is, unless the balance says so.

    With a pixel guard, an anchor that would be a negative of an earlier one of its video, but looks
    like it, is drawn again, up to 16 times, in its part of the video.

    Args:
        videos, frames: V and F; a batch has N = V F anchors, sorted by video.
        positive_radius: greatest distance of the positive in frames; 0 takes the same frame.
        steps_per_epoch: by default the number of batches that the frames of all videos fill.
        positives: R, positives per anchor, distinct if there are as many frames.
        balance: what is drawn equally often: every ``"video"``, ``"patient"`` or ``"frame"``.
    """

    videos: int = 8
    frames: int = 16
    positive_radius: int = 3
    steps_per_epoch: int | None = None
    positives: int = 1
    balance: Balance = "video"

    def __post_init__(self) -> None:
        _at_least(1, videos=self.videos, frames=self.frames, positives=self.positives)
        _at_least(0, positive_radius=self.positive_radius)
        check_balance(self.balance)
        if self.steps_per_epoch is not None:
            _at_least(1, steps_per_epoch=self.steps_per_epoch)

    def steps(self, num_frames: Sequence[int], traits: VideoTraits | None = None) -> int:
        """Batches per epoch over videos of the given lengths."""
        if self.steps_per_epoch is not None:
            return self.steps_per_epoch
        return -(-sum(num_frames) // (self._count(num_frames, traits) * self.frames))

    def draw(
        self,
        num_frames: Sequence[int],
        windows: Sequence[tuple[float, float]],
        *,
        seed: int,
        epoch: int,
        step: int,
        traits: VideoTraits | None = None,
    ) -> Draw:
        """Draws the batch of (seed, epoch, step); ``windows`` act in the loss, and the guard."""
        count = self._count(num_frames, traits)
        place = {"seed": seed, "epoch": epoch, "step": step}
        videos = drawn_videos(self.balance, num_frames, traits, count, **place)
        rng = generator(seed, epoch, step, 0)
        lengths = np.asarray(num_frames, dtype=np.int64)[videos]
        part = np.arange(self.frames) + rng.random((len(videos), self.frames))
        anchors = (part / self.frames * lengths[:, None]).astype(np.int64)
        anchors = np.minimum(anchors, lengths[:, None] - 1).reshape(-1)
        positives = np.array(
            [
                _positives(rng, int(n), int(anchor), self.positive_radius, self.positives)
                for n, anchor in zip(np.repeat(lengths, self.frames), anchors, strict=True)
            ]
        )
        if traits is not None and traits.guard is not None:
            again = generator(seed, epoch, step, 0, 4)
            for first, video in zip(range(0, len(anchors), self.frames), videos, strict=True):
                rows = slice(first, first + self.frames)
                shown = np.column_stack([anchors[rows], positives[rows]])
                self._tell_apart(shown, int(video), num_frames, windows, traits, again)
                anchors[rows], positives[rows] = shown[:, 0], shown[:, 1:]
        nothing = np.empty((len(anchors), 0), dtype=np.int64)
        return Draw(np.repeat(videos, self.frames), anchors, _squeezed(positives), nothing)

    def _count(self, num_frames: Sequence[int], traits: VideoTraits | None) -> int:
        return min(self.videos, most_videos(self.balance, num_frames, traits))

    def _tell_apart(
        self,
        shown: np.ndarray,
        video: int,
        num_frames: Sequence[int],
        windows: Sequence[tuple[float, float]],
        traits: VideoTraits,
        rng: np.random.Generator,
    ) -> None:
        """Draws anchors of a video again that look like others; ``shown`` [F, 1 + R] changes."""
        n = num_frames[video]
        stay = without_conflict(
            anchor_conflicts(shown, video, windows, self.positive_radius, traits)
        )
        for row in np.flatnonzero(~stay):
            first = row * n // self.frames
            others = np.arange(first, max(first + 1, -(-(row + 1) * n // self.frames)))
            kept = shown[stay]
            for anchor in rng.permutation(others)[:TRIES].tolist():
                new = np.array(
                    [anchor, *_positives(rng, n, anchor, self.positive_radius, self.positives)]
                )
                together = np.vstack([kept, new])
                conflict = anchor_conflicts(together, video, windows, self.positive_radius, traits)
                if not conflict[-1].any():
                    shown[row], stay[row] = new, True
                    break


@dataclass(frozen=True)
class UniformSampler:
    """Frames drawn uniformly over all frames of all videos, as from a set of images.

    Steps go through all frames in one random permutation after another, so that no frame is seen
    much more often than another, and longer videos have more anchors. The anchors of a batch are in
    random order, and there are no sampled negatives.

    Args:
        frames: anchors per batch; fewer if the videos have not as many frames.
        positive_radius: greatest distance of the positive in frames; 0 takes the same frame.
        steps_per_epoch: by default the number of batches that the frames of all videos fill.
        positives: R, positives per anchor, distinct if there are as many frames.
    """

    frames: int = 128
    positive_radius: int = 0
    steps_per_epoch: int | None = None
    positives: int = 1

    def __post_init__(self) -> None:
        _at_least(1, frames=self.frames, positives=self.positives)
        _at_least(0, positive_radius=self.positive_radius)
        if self.steps_per_epoch is not None:
            _at_least(1, steps_per_epoch=self.steps_per_epoch)

    def steps(self, num_frames: Sequence[int], traits: VideoTraits | None = None) -> int:
        """Batches per epoch over videos of the given lengths."""
        if self.steps_per_epoch is not None:
            return self.steps_per_epoch
        return -(-sum(num_frames) // self.frames)

    def draw(
        self,
        num_frames: Sequence[int],
        windows: Sequence[tuple[float, float]],
        *,
        seed: int,
        epoch: int,
        step: int,
        traits: VideoTraits | None = None,
    ) -> Draw:
        """Draws the batch of (seed, epoch, step); ``windows`` and ``traits`` do not matter."""
        ends = np.cumsum(num_frames)
        count = min(self.frames, int(ends[-1]))
        frames = taking_turns(int(ends[-1]), count, seed, epoch, step)
        videos = np.searchsorted(ends, frames, side="right")
        lengths = np.asarray(num_frames, dtype=np.int64)[videos]
        anchors = frames - (ends[videos] - lengths)
        rng = generator(seed, epoch, step, 0)
        positives = np.array(
            [
                _positives(rng, n, anchor, self.positive_radius, self.positives)
                for n, anchor in zip(lengths.tolist(), anchors.tolist(), strict=True)
            ]
        )
        nothing = np.empty((count, 0), dtype=np.int64)
        return Draw(videos, anchors, _squeezed(positives), nothing)


def anchor_conflicts(
    shown: np.ndarray,
    video: int,
    windows: Sequence[tuple[float, float]],
    radius: int,
    traits: VideoTraits,
) -> np.ndarray:
    """Returns bool [n, n]: whether two anchors of a video would be negatives although alike.

    Args:
        shown: int64 [n, 1 + R], the anchors and their positives.
        video: number of the video.
        windows, radius, traits: see :func:`anchor_windows`; the traits have a guard.
    """
    assert traits.guard is not None
    anchor = shown[:, 0]
    window = anchor_windows(np.full(len(shown), video), anchor, windows, radius, traits)
    time = times_in_frames(video, anchor, traits)
    return conflicts(traits.guard, video, shown, time, window)


def _positives(
    rng: np.random.Generator, num_frames: int, anchor: int, radius: int, number: int
) -> np.ndarray:
    near = positive_candidates(num_frames, anchor, radius)
    return rng.choice(near, 1) if number == 1 else np.resize(rng.permutation(near), number)


def _squeezed(positives: np.ndarray) -> np.ndarray:
    return positives[:, 0] if positives.shape[1] == 1 else positives


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
