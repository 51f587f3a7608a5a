"""The pixel guard: frames that look like the anchor are not its negatives, however far in time.

In a periodic clip, such as one of a beating heart, a distant frame shows the same phase; in a
frozen clip all frames are the same. As negatives they would teach to tell apart what is alike.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

SIDE = 16  # pixels
_ROWS_AT_ONCE = 512


def thumbnails(frames: Tensor) -> Tensor:
    """Returns grey thumbnails, uint8 [n, SIDE * SIDE], of uint8 [n, 1 or 3, H, W] frames."""
    grey = frames.float().mean(1, keepdim=True)
    return adaptive_avg_pool2d(grey, SIDE).round().to(torch.uint8).flatten(1)


class PixelGuard:
    """Tells which frames of a video look alike.

    Two frames do if the Pearson correlation of their thumbnails is above ``limit``, or if both are
    of one grey level throughout, which have no correlation.

    Args:
        limit: the greatest correlation of an anchor with its intra-video negatives.
        videos: the thumbnails of each video, uint8 ``[n, SIDE * SIDE]``.
    """

    def __init__(self, limit: float, videos: Iterable[Tensor]) -> None:
        parts = list(videos)
        self.limit = limit
        self._ends = np.cumsum([0, *map(len, parts)])
        self._pixels = torch.cat(parts)  # one tensor, so that workers share one piece of memory

    def alike(self, video: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Returns bool [a, b]: whether frames ``first`` [a] of a video look like ``second`` [b]."""
        a, b = self._standardised(video, first), self._standardised(video, second)
        flat = np.logical_and.outer(~a.any(1), ~b.any(1))
        return np.asarray((a @ b.T > self.limit) | flat)

    def refused(self, video: int, time: np.ndarray, window: np.ndarray) -> tuple[int, int]:
        """Returns how many pairs (anchor, frame inside its window) a video has, and how many alike.

        Args:
            video: number of the video.
            time: float64 [n], times of its frames.
            window: float64 [n, 2], of its frames as anchors, in the same unit.
        """
        frames = np.arange(len(time))
        pairs = alike = 0
        for start in range(0, len(frames), _ROWS_AT_ONCE):
            rows = frames[start : start + _ROWS_AT_ONCE]
            distance = np.abs(time[rows, None] - time)
            inside = (distance >= window[rows, :1]) & (distance <= window[rows, 1:])
            inside &= distance > 0
            pairs += int(inside.sum())
            alike += int((inside & self.alike(video, rows, frames)).sum())
        return pairs, alike

    def _standardised(self, video: int, frames: np.ndarray) -> np.ndarray:
        """Returns float32 [n, pixels] of mean 0 and length 1; 0 where there is one grey level."""
        pixels = self._pixels[self._ends[video] : self._ends[video + 1]]
        values = pixels[torch.from_numpy(np.asarray(frames))].numpy().astype(np.float32)
        values -= values.mean(1, keepdims=True)
        length = np.linalg.norm(values, axis=1, keepdims=True)
        return np.divide(values, length, out=np.zeros_like(values), where=length > 1e-3)


def conflicts(
    guard: PixelGuard, video: int, shown: np.ndarray, time: np.ndarray, window: np.ndarray
) -> np.ndarray:
    """Returns bool [n, n]: whether two anchors of a video would be negatives although alike.

    They would if one is inside the other's window, and are alike if any of the frames are that are
    shown for one and for the other. An anchor is in no conflict with itself.

    Args:
        guard: tells which frames look alike.
        video: number of the video.
        shown: int64 [n, 1 + R], the frames of the anchors and of their positives.
        time: float64 [n], times of the anchors, in frames.
        window: float64 [n, 2], of the anchors, in frames.
    """
    n, width = shown.shape
    frames = shown.reshape(-1)
    alike = guard.alike(video, frames, frames).reshape(n, width, n, width).any((1, 3))
    distance = np.abs(time[:, None] - time)
    inside = (distance >= window[:, :1]) & (distance <= window[:, 1:]) & (distance > 0)
    return (inside | inside.T) & alike


def without_conflict(conflict: np.ndarray) -> np.ndarray:
    """Returns bool [n]: the rows that stay if each gives way to those before it that stay."""
    stay = np.zeros(len(conflict), dtype=bool)
    for row, others in enumerate(conflict):
        stay[row] = not (others & stay).any()
    return stay
