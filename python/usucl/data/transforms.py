"""From uint8 frames to the encoder's input: resizing, augmentation, normalisation.

torchvision takes a second to import, which reading videos can do without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor

from usucl.data.video.limits import limit

# Statistics of ImageNet, which pretrained backbones expect and the paper uses.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

AugmentationName = Literal["crop", "crop-flip-jitter"]
Augment = Callable[[Tensor], Tensor]
"""Maps one uint8 image ``[1 or 3, H, W]`` to a uint8 view ``[1 or 3, S, S]``, at random."""


def normalise(images: Tensor) -> Tensor:
    """Maps uint8 [..., 1 or 3, H, W] to (images / 255 - MEAN) / STD: float32 [..., 3, H, W]."""
    scale = torch.tensor(STD, device=images.device).mul(255).reciprocal().view(3, 1, 1)
    shift = torch.tensor(MEAN, device=images.device).div(torch.tensor(STD, device=images.device))
    return images.float() * scale - shift.view(3, 1, 1)


def resize_short_side(images: Tensor, size: int) -> Tensor:
    """Resizes [..., H, W] to a shorter side of ``size``, antialiased, keeping the aspect ratio.

    Raises:
        ValueError: the images are so thin that they would become too large.
    """
    from torchvision.transforms.v2 import functional as F

    height, width = images.shape[-2:]
    short, thinnest = min(height, width), limit("USUCL_MAX_ASPECT")
    if not 0 < max(height, width) <= thinnest * short:
        raise ValueError(
            f"images must be at most {thinnest} times as long as wide, got {width}x{height}; "
            "set USUCL_MAX_ASPECT to raise this"
        )
    return F.resize(images, [size], antialias=True)


def centre_view(image: Tensor, size: int) -> Tensor:
    """Returns what an encoder sees of one image ``[C, H, W]``: ``[C, size, size]``.

    Raises:
        ValueError: see :func:`resize_short_side`.
    """
    from torchvision.transforms.v2 import functional as F

    return F.center_crop(resize_short_side(image.contiguous(), size), [size, size])


class Augmentation:
    """Random views of frames for contrastive learning, of ``image_size`` x ``image_size`` pixels.

    ``crop``: a random crop of the frame after resizing its short side to ``image_size``.
    ``crop-flip-jitter``: a random resized crop (0.5 to 1 of the area), horizontal flip, brightness
    and contrast changed by up to 40 %.
    A function of one's own, such as a ``torchvision.transforms.v2.Compose``: it gets one uint8
    image ``[1 or 3, H, W]``, whose short side is sqrt(2) ``image_size``, and returns a uint8 view
    ``[1 or 3, S, S]`` with S = ``image_size``. Grey videos have one channel.

    Every image gets its own random numbers from its own seed: torchvision draws once per call, so a
    batched call would change all images alike. A function of one's own must draw from PyTorch's
    default generator, as torchvision does, so that runs can be repeated.

    Args:
        name: "crop", "crop-flip-jitter" or a function.
        image_size: side of the view in pixels.

    Raises:
        ValueError: the name is unknown, or the size is below 8.
    """

    def __init__(self, name: AugmentationName | Augment, image_size: int) -> None:
        from torchvision.transforms import v2

        if not callable(name) and name not in get_args(AugmentationName):
            raise ValueError(
                f"augmentation must be one of {', '.join(get_args(AugmentationName))} or a "
                f"function, got {name!r}"
            )
        if image_size < 8:
            raise ValueError(f"image_size must be at least 8, got {image_size}")
        self.name = name
        self.image_size = image_size
        self.transform: Augment = (
            name
            if callable(name)
            else v2.RandomCrop(image_size)
            if name == "crop"
            else v2.Compose(
                [
                    v2.RandomResizedCrop(image_size, scale=(0.5, 1.0), antialias=True),
                    v2.RandomHorizontalFlip(),
                    v2.ColorJitter(brightness=0.4, contrast=0.4),
                ]
            )
        )

    @property
    def short_side(self) -> int:
        """Short side, in pixels, that input frames must have so that no crop is enlarged."""
        return self.image_size if self.name == "crop" else math.ceil(self.image_size * 2**0.5)

    def __call__(self, images: list[Tensor], seeds: list[int]) -> Tensor:
        """Returns normalised views, float32 [n, 3, S, S], of uint8 [1 or 3, H, W] images.

        Raises:
            ValueError: a function of one's own returns something other than a view.
        """
        size = self.image_size
        views = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
        with _private_randomness() as random:
            for view, image, seed in zip(views, images, seeds, strict=True):
                random.manual_seed(seed)
                made = self.transform(image)
                if made.dtype != torch.uint8 or made.shape[-2:] != (size, size):
                    raise ValueError(
                        f"augmentation must return a uint8 view [1 or 3, {size}, {size}], got "
                        f"{made.dtype} {list(made.shape)}"
                    )
                view.copy_(made)
        return normalise(views)


@contextmanager
def _private_randomness() -> Iterator[torch.Generator]:
    """Yields the generator that torchvision draws from, and restores its state afterwards.

    It is seeded directly because torch.manual_seed would seed the accelerators too.
    """
    state = torch.default_generator.get_state()
    try:
        yield torch.default_generator
    finally:
        torch.default_generator.set_state(state)
