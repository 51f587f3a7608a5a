"""Random views by name, by options, or by a function of one's own.

torchvision takes a second to import, which reading videos can do without.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from usucl._spelling import did_you_mean
from usucl.data.augmentation.options import RECIPES, UltrasoundAugmentation
from usucl.data.augmentation.views import PIXELS, make_views
from usucl.data.transforms import grey_of, normalise, resize_short_side

AugmentationName = Literal["crop", "crop-flip-jitter", "global", "local"]
Augment = Callable[[Tensor], Tensor]
"""Maps one uint8 image ``[1 or 3, H, W]`` to a uint8 view ``[1 or 3, S, S]``, at random."""
AugmentationOptions = AugmentationName | Mapping[str, Any] | UltrasoundAugmentation
"""A name, or the options of ultrasound augmentation, as a configuration may give them."""

LARGEST = 2**0.5  # short side of frames in sides of a view; smaller crops are enlarged
COARSEST = 1.5  # larger frames, in short sides that are needed, are reduced before


class Augmentation:
    """Random views of frames for contrastive learning, of ``image_size`` x ``image_size`` pixels.

    ``crop``: a random crop of the frame after resizing its short side to ``image_size``.
    ``crop-flip-jitter``: a random resized crop (0.5 to 1 of the area), horizontal flip, brightness
    and contrast changed by up to 40 %.
    ``global`` and ``local``: ultrasound augmentation, which for diffuse findings keeps what the
    whole picture means, or for lesions crops; see :data:`RECIPES`.
    Options: see :class:`UltrasoundAugmentation`, or a mapping of them by name, in which ``recipe``
    names the one that the others change.
    A function of one's own, such as a ``torchvision.transforms.v2.Compose``: it gets one uint8
    image ``[1 or 3, H, W]``, whose short side is sqrt(2) ``image_size``, and returns a uint8 view
    ``[1 or 3, S, S]`` with S = ``image_size``. Grey videos have one channel.

    Every image gets its own random numbers from its own seed, so that its view is the same whatever
    other images are in the batch. torchvision draws once per call, so its transforms are called
    once per image; ultrasound augmentation makes all views at once. A function of one's own must
    draw from PyTorch's default generator, as torchvision does, so that runs can be repeated.

    Args:
        name: one of the names, options or a function.
        image_size: side of the view in pixels.
        channels: 3, or 1 for grey views: colour images become grey first.

    Raises:
        ValueError: the name or an option is unknown, an option is outside of its range, the size is
            below 8, or the channels are others.
        TypeError: an option has the wrong type.
    """

    def __init__(
        self, name: AugmentationOptions | Augment, image_size: int, channels: int = 3
    ) -> None:
        if image_size < 8:
            raise ValueError(f"image_size must be at least 8, got {image_size}")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {channels}")
        self.name = name
        self.image_size = image_size
        self.channels = channels
        self.options = check_augmentation(name)
        self.transform = None if self.options else _transform(name, image_size)

    @property
    def short_side(self) -> int:
        """Short side, in pixels, that input frames must have so that hardly a crop is enlarged."""
        if self.options is None:
            side = 1 if self.name == "crop" else LARGEST
        else:
            cropped = self.options.crop_probability > 0
            side = min(LARGEST, self.options.crop[0] ** -0.5) if cropped else 1
        return math.ceil(self.image_size * side)

    def __call__(self, images: list[Tensor], seeds: list[int]) -> Tensor:
        """Returns normalised views, float32 [n, channels, S, S], of uint8 [1 or 3, H, W] images.

        Raises:
            ValueError: a function of one's own returns something other than a view, or there is not
                one seed per image.
        """
        if len(images) != len(seeds):
            raise ValueError(f"seeds must be one per image, {len(images)}, got {len(seeds)}")
        if self.channels == 1:
            images = [grey_of(image) for image in images]
        if self.options is None:
            return self._one_by_one(images, seeds)
        size = self.image_size
        same_size = defaultdict(list)
        for number, image in enumerate(images):
            same_size[image.shape].append(number)
        views, start = torch.empty(len(images), self.channels, size, size), 0
        for numbers in same_size.values():
            frames = torch.stack([images[number] for number in numbers])
            if min(frames.shape[-2:]) > COARSEST * self.short_side:
                frames = resize_short_side(frames, self.short_side)
            of_these = [seeds[number] for number in numbers]
            for part in make_views(self.options, frames, of_these, size):
                normalise(part, out=views[start : start + len(part)], channels=self.channels)
                start += len(part)
        if len(same_size) > 1:
            order = [number for numbers in same_size.values() for number in numbers]
            views = views[torch.tensor(order).argsort()]
        return views

    def _one_by_one(self, images: list[Tensor], seeds: list[int]) -> Tensor:
        assert self.transform is not None
        size = self.image_size
        views = torch.empty(len(images), self.channels, size, size, dtype=torch.uint8)
        with _private_randomness() as random:
            for view, image, seed in zip(views, images, seeds, strict=True):
                if self.name == "crop" and min(image.shape[-2:]) < size:
                    image = resize_short_side(image[None], size)[0]
                random.manual_seed(seed)
                made = self.transform(image)
                if made.dtype != torch.uint8 or made.shape[-2:] != (size, size):
                    raise ValueError(
                        f"augmentation must return a uint8 view [1 or 3, {size}, {size}], got "
                        f"{made.dtype} {list(made.shape)}"
                    )
                view.copy_(grey_of(made) if self.channels == 1 else made)
        normalised = torch.empty(views.shape)
        step = max(1, PIXELS // (size * size))  # new memory costs time: little in between
        for part, out in zip(views.split(step), normalised.split(step), strict=True):
            normalise(part, out=out, channels=self.channels)
        return normalised


def check_augmentation(name: AugmentationOptions | Augment) -> UltrasoundAugmentation | None:
    """Returns the options of ultrasound augmentation; None for what torchvision or a user makes.

    Raises:
        ValueError, TypeError: see :class:`Augmentation`.
    """
    if isinstance(name, UltrasoundAugmentation):
        return name
    if isinstance(name, Mapping):
        return UltrasoundAugmentation.of(name)
    if callable(name):
        return None
    names = get_args(AugmentationName)
    if name not in names:
        raise ValueError(
            f"augmentation must be one of {', '.join(names)}, options by name or a function, "
            f"got {name!r}{did_you_mean(str(name), names)}"
        )
    return RECIPES.get(name)


def _transform(name: Any, image_size: int) -> Augment:
    from torchvision.transforms import v2

    if callable(name):
        return name
    if name == "crop":
        return v2.RandomCrop(image_size)
    return v2.Compose(
        [
            v2.RandomResizedCrop(image_size, scale=(0.5, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.4, contrast=0.4),
        ]
    )


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
