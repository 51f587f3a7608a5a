"""Frames decoded and resized to what an encoder needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

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

    return F.center_crop(resized(entry.open(), indices, image_size), [image_size, image_size])


def resized(video: Video, indices: Sequence[int] | np.ndarray | Tensor, short_side: int) -> Tensor:
    """Returns uint8 [n, 3, H', W']; full-size frames are in memory one at a time."""
    wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
    unique, position = np.unique(wanted, return_inverse=True)
    frames = list(resize_each(video.iter_frames(unique), short_side))
    if not frames:
        return torch.empty(0, 3, short_side, short_side, dtype=torch.uint8)
    return torch.stack(frames)[torch.from_numpy(position)]


def resize_each(frames: Iterator[Tensor], short_side: int) -> Iterator[Tensor]:
    """Yields uint8 [3, H', W'] for every uint8 [3, H, W]."""
    for frame in frames:  # decoded pixel by pixel, which is three times as fast to resize
        yield resize_short_side(frame, short_side).contiguous()


def resized_size(video: Video, short_side: int) -> tuple[int, int]:
    """Returns the height and width of the video's resized frames."""
    short, long = sorted((video.height, video.width))
    other = int(short_side * long / short)  # as torchvision rounds it
    return (short_side, other) if video.height <= video.width else (other, short_side)


def grey_as_one_channel(frames: Tensor) -> Tensor:
    """Returns uint8 [n, 1, H, W] if all frames are grey, otherwise ``frames``."""
    red, green, blue = frames.unbind(1)
    grey = torch.equal(red, green) and torch.equal(red, blue)
    return frames[:, :1].contiguous() if grey else frames
