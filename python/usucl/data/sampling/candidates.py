"""Which frames of a video may be positives or intra-video negatives of an anchor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from usucl.data.sampling.guard import PixelGuard

SLACK = 0.01  # frames: times are rounded to float32, so the bounds of a window need some room


class VideoTraits(NamedTuple):
    """What a sampler may ask of the videos besides their lengths.

    Times are measured in frames: one frame is the mean time between two frames of the video.
    """

    patient: np.ndarray  # int64 [V], -1 where unknown
    gap: np.ndarray  # int64 [V], least frames from the farthest positive to the nearest negative
    position: tuple[np.ndarray | None, ...]
    """Per video the times of its frames, float64 [n]; None where they are evenly spaced."""
    guard: PixelGuard | None = None


def positive_candidates(num_frames: int, anchor: int, radius: int) -> np.ndarray:
    """Returns the other frames within ``radius`` of the anchor, int64; the anchor if there is none.

    With radius 0 the positive is the anchor's own frame under another augmentation.
    """
    near = np.arange(max(0, anchor - radius), min(num_frames, anchor + radius + 1))
    others = near[near != anchor]
    return others if len(others) else np.array([anchor])


def gap_in_frames(min_gap: float, frames_per_unit: float) -> int:
    """Returns a gap beyond the positives in whole frames, at least one."""
    return max(1, math.ceil(min_gap * frames_per_unit - SLACK))


def clamp_window(window: tuple[float, float], reach: float, gap: int = 1) -> tuple[float, float]:
    """Returns (lo, hi) in frames, kept beyond the positives even in short videos.

    The paper's code keeps lo >= 4 and hi >= 6 frames for positives within 3 frames, that is
    lo >= reach + 1 and hi >= reach + 3. With another ``gap`` than 1, these are
    lo >= reach + gap and hi >= reach + gap + 2.

    Args:
        window: (lo, hi) in frames.
        reach: greatest distance of a positive.
        gap: least distance from the farthest positive to the nearest negative.
    """
    return max(window[0], reach + gap), max(window[1], reach + gap + 2)


def negative_candidates(
    num_frames: int, anchor: int, window: tuple[float, float], radius: int, gap: int = 1
) -> np.ndarray:
    """Returns the frames inside the temporal window on both sides of the anchor, int64, ascending.

    With (lo, hi) = clamp_window(window, radius, gap), in frames, a distance d counts if

        before the anchor: floor(lo) <  d <= floor(hi)
        after the anchor:  floor(lo) <= d <  ceil(hi)

    The asymmetry is that of the official code, kept so that the draws are equal.

    Args:
        num_frames: n, the length of the video.
        anchor: frame index in [0, n).
        window: (lo, hi) in frames; for a fraction of the length, multiply by n.
        radius: greatest distance of a positive, in frames.
        gap: see :func:`clamp_window`.
    """
    lo, hi = clamp_window(window, radius, gap)
    before = np.arange(max(0, anchor - math.floor(hi)), max(0, anchor - math.floor(lo)))
    after = np.arange(anchor + math.floor(lo), min(num_frames, anchor + math.ceil(hi)))
    return np.concatenate([before, after])


def timed_negative_candidates(
    position: np.ndarray, anchor: int, window: tuple[float, float], radius: int, gap: int = 1
) -> np.ndarray:
    """Returns the frames with lo <= d <= hi, int64, ascending, where the frame rate varies.

    d is the distance in time, and (lo, hi) = clamp_window(window, reach, gap), so that no possible
    positive is among them, however slow the video is around the anchor.

    Args:
        position: float64 [n], ascending times of the frames, in frames on average.
        anchor, window, radius, gap: see :func:`negative_candidates`.
    """
    lo, hi = clamp_window(window, reach(position, np.array([anchor]), radius)[0], gap)
    distance = np.abs(position - position[anchor])
    return np.flatnonzero((distance >= lo - SLACK) & (distance <= hi + SLACK))


def anchor_windows(
    video: np.ndarray,
    frame: np.ndarray | None,
    windows: Sequence[tuple[float, float]],
    radius: int,
    traits: VideoTraits,
) -> np.ndarray:
    """Returns the window of each anchor in frames, kept beyond its positives: float64 [N, 2].

    It is wider by ``SLACK`` on both sides, so that rounded times are inside at the bounds.

    Args:
        video: int64 [N], numbers of the videos.
        frame: int64 [N], the anchors; without them, frames count as evenly spaced.
        windows: (lo, hi) in frames, one per video.
        radius: greatest distance of a positive, in frames.
        traits: of the videos.
    """
    beyond = np.full(len(video), float(radius))
    if frame is not None:
        for number in np.unique(video):
            position, rows = traits.position[number], video == number
            if position is not None:
                beyond[rows] = reach(position, frame[rows], radius)
    bounds = [
        clamp_window(windows[v], far, int(traits.gap[v]))
        for v, far in zip(video.tolist(), beyond.tolist(), strict=True)
    ]
    slack = np.array([-SLACK, SLACK])
    return np.array(bounds, dtype=np.float64).reshape(-1, 2) + slack


def times_in_frames(video: int, frame: np.ndarray, traits: VideoTraits) -> np.ndarray:
    """Returns the times of a video's frames, in frames: float64, of the shape of ``frame``."""
    position = traits.position[video]
    return frame.astype(np.float64) if position is None else position[frame]


def reach(position: np.ndarray, anchor: np.ndarray, radius: int) -> np.ndarray:
    """Returns the greatest distance in time of a possible positive, at least ``radius``: [N]."""
    last = len(position) - 1
    after = position[np.minimum(anchor + radius, last)] - position[anchor]
    before = position[anchor] - position[np.maximum(anchor - radius, 0)]
    return np.maximum(np.maximum(after, before), radius)
