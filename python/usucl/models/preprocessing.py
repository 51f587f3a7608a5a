"""From images of any kind to what an encoder sees, in the way of training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from usucl.data import Video, normalise, open_video
from usucl.data.transforms import GREY_MEAN, GREY_STD, MEAN, STD, centre_view
from usucl.data.video import IMAGE_SUFFIXES, is_stack, read_image
from usucl.data.video.images.image import displayed, over_black

Picture: TypeAlias = "str | Path | Image | np.ndarray | Tensor | Video | Sequence[Picture]"
"""An image, a batch of images, or a file of either."""

_CHANNELS = (1, 3, 4)  # grey, RGB, RGB with transparency


def description(
    image_size: int,
    channels: int = 3,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> dict[str, Any]:
    """Returns what has to be done to an image before a network sees it, in numbers and words.

    Args:
        image_size: side of the square images, in pixels.
        channels: 1 or 3.
        mean, std: of the network, where they are not those of this package.
    """
    own = (MEAN, STD) if channels == 3 else (GREY_MEAN, GREY_STD)
    values = "RGB" if channels == 3 else "grey"
    return {
        "image_size": image_size,
        "channels": channels,
        "mean": list(mean or own[0]),
        "std": list(std or own[1]),
        "preprocessing": (
            f"{values}, short side resized to {image_size} (bilinear, antialiased), centre "
            f"{image_size}x{image_size} cropped, ({values} / 255 - mean) / std"
        ),
    }


def preprocess(picture: Picture, image_size: int) -> Tensor:
    """Returns the normalised centres of images, float32 ``[B, 3, S, S]`` with S ``image_size``.

    The short side is resized to S, antialiased, the centre is cropped, and the mean and standard
    deviation of ImageNet are taken out: bit for bit the views that evaluation embeds.

    Raises:
        TypeError, ValueError: see :meth:`usucl.models.FrameEncoder.preprocess`.
    """
    views = [centre_view(frame, image_size) for frame in _frames(picture)]
    if not views:
        raise ValueError("image must hold at least one image, got none")
    return normalise(torch.stack(views))


def _frames(picture: Any) -> Iterator[Tensor]:
    """Yields uint8 ``[3, H, W]`` images."""
    if isinstance(picture, str | Path):
        yield from _read(Path(picture))
    elif isinstance(picture, Video):
        yield from picture.iter_frames(range(len(picture)))
    elif isinstance(picture, Image):
        if picture.mode.startswith(("I", "F")):
            raise ValueError(f"image must have 8 bits per channel, got a PIL image {picture.mode}")
        yield torch.from_numpy(displayed(picture)).permute(2, 0, 1)
    elif isinstance(picture, Tensor | np.ndarray):
        yield from _unstacked(picture)
    elif isinstance(picture, Sequence):
        for item in picture:
            yield from _frames(item)
    else:
        raise TypeError(
            "image must be a PIL image, a path, an array, a tensor or a sequence of these, got "
            f"{type(picture).__name__}"
        )


def _read(path: Path) -> Iterator[Tensor]:
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not is_stack(path):
        yield torch.from_numpy(read_image(path)).permute(2, 0, 1)
    else:
        yield from _frames(open_video(path))


def _unstacked(values: np.ndarray | Tensor) -> Iterator[Tensor]:
    images = _channels_first(values)
    for image in _in_8_bits(images.detach().cpu()):
        if len(image) == 4:
            rgba = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
            yield torch.from_numpy(over_black(rgba)).permute(2, 0, 1)
        else:
            yield image.expand(3, -1, -1)


def _channels_first(values: np.ndarray | Tensor) -> Tensor:
    """Returns images of any layout as ``[B, C, H, W]``.

    Where the channels could come first or last, they are taken as PyTorch has them in tensors, and
    as all others have them in arrays.
    """
    shape = tuple(values.shape)
    axes = {2: (), 3: (0, 2), 4: (1, 3)}.get(len(shape))
    channels = [axis for axis in axes or () if shape[axis] in _CHANNELS]
    if axes is None or (len(shape) == 4 and not channels) or 0 in shape:
        raise ValueError(
            "image must be [H, W], [H, W, C] or [C, H, W] with C = 1, 3 or 4, or a batch [B, ...] "
            f"of such images, got the shape {list(shape)}"
        )
    tensor = _tensor(values)
    if len(shape) == 2:
        return tensor[None, None]
    if not channels:
        return tensor[:, None]  # a batch of grey images
    first = isinstance(values, Tensor)
    moved = tensor.movedim(channels[0] if first else channels[-1], len(shape) - 3)
    return moved if len(shape) == 4 else moved[None]


def _tensor(values: np.ndarray | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values.as_subclass(Tensor)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"image must be uint8, or floats in [0, 1], got an array of {values.dtype}")
    return torch.from_numpy(values.copy())


def _in_8_bits(images: Tensor) -> Tensor:
    """Returns uint8 images; floats are rounded to the values that frames of videos have."""
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise TypeError(f"image must be uint8, or floats in [0, 1], got {images.dtype}")
    least, most = float(images.min()), float(images.max())
    if not (least >= 0.0 and most <= 1.0):  # NaN is neither
        raise ValueError(
            f"image must be uint8, or floats in [0, 1], got floats from {least:g} to {most:g}"
        )
    return (images.float() * 255.0).round().to(torch.uint8)
