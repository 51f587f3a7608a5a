"""Decoded frames at the size the encoder needs, and a store that keeps them in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from usucl._progress import track
from usucl.data.catalog.entry import VideoEntry
from usucl.data.transforms import resize_short_side
from usucl.data.video import Video


def load_frames(
    entry: VideoEntry, indices: Sequence[int] | np.ndarray | Tensor, image_size: int
) -> Tensor:
    """Returns frames as an encoder sees them without augmentation: uint8 [n, 3, S, S].

    The short side is resized to S = ``image_size``, then the centre is cropped.

    Raises:
        IndexError: an index is outside the video.
        VideoError: the video can no longer be read.
    """
    from torchvision.transforms.v2 import functional as F

    return F.center_crop(_resized(entry.open(), indices, image_size), [image_size, image_size])


class FrameStore:
    """Frames of a list of videos with the short side resized, in memory as far as they fit.

    Videos are decoded once, in order, until ``limit_bytes`` are used; frames of the others are
    decoded whenever they are asked for. Grey videos are stored with one channel.

    Args:
        entries: the videos.
        short_side: length of the resized short side, in pixels.
        limit_bytes: greatest size of all stored frames.

    Raises:
        VideoError: a video can no longer be read.
    """

    def __init__(self, entries: Sequence[VideoEntry], short_side: int, limit_bytes: int) -> None:
        self.entries = tuple(entries)
        self.short_side = short_side
        self._stored: dict[int, Tensor] = {}
        left = limit_bytes
        for index, entry in enumerate(track(self.entries, "Decoding videos", unit="videos")):
            video = entry.open()
            scale = short_side / min(video.height, video.width)
            one_channel = round(video.height * scale) * round(video.width * scale) * len(video)
            if one_channel > left:
                break
            frames = _grey_as_one_channel(_resized(video, range(len(video)), short_side))
            if frames.nbytes > left:
                break
            self._stored[index] = frames
            left -= frames.nbytes

    @property
    def stored_videos(self) -> int:
        """Number of videos in memory."""
        return len(self._stored)

    def frames(self, index: int, frames: Sequence[int] | np.ndarray) -> Tensor:
        """Returns frames of video number ``index``: uint8 [n, 1 or 3, H, W]."""
        if index in self._stored:
            return self._stored[index][torch.as_tensor(frames)]
        return _grey_as_one_channel(_resized(self.entries[index].open(), frames, self.short_side))


def _resized(video: Video, indices: Sequence[int] | np.ndarray | Tensor, short_side: int) -> Tensor:
    """Returns uint8 [n, 3, H', W']; full-size frames are in memory one at a time."""
    wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
    unique, position = np.unique(wanted, return_inverse=True)
    frames = list(_resize_each(video.iter_frames(unique), short_side))
    if not frames:
        return torch.empty(0, 3, short_side, short_side, dtype=torch.uint8)
    return torch.stack(frames)[torch.from_numpy(position)]


def _resize_each(frames: Iterator[Tensor], short_side: int) -> Iterator[Tensor]:
    for frame in frames:
        yield resize_short_side(frame.contiguous(), short_side)


def _grey_as_one_channel(frames: Tensor) -> Tensor:
    red, green, blue = frames.unbind(1)
    grey = torch.equal(red, green) and torch.equal(red, blue)
    return frames[:, :1].contiguous() if grey else frames
