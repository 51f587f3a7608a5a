"""From uint8 frames to the encoder's input: resizing, cropping, normalisation.

torchvision takes a second to import, which reading videos can do without.
"""

from __future__ import annotations

import torch
from torch import Tensor

from usucl.data.video.limits import limit

# Statistics of ImageNet, which pretrained backbones expect and the paper uses.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = (0.449,), (0.226,)
"""Statistics of images with one channel: the means of the above, rounded."""
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey: ITU-R BT.601, as in PIL."""


def normalise(images: Tensor, out: Tensor | None = None, *, channels: int = 3) -> Tensor:
    """Maps uint8 [..., 1 or 3, H, W] to (images / 255 - MEAN) / STD: float32 [..., 3, H, W].

    Args:
        images: grey or colour.
        out: where to write the result, if not to new memory.
        channels: 3, or 1 for (grey / 255 - GREY_MEAN) / GREY_STD: float32 [..., 1, H, W].
    """
    if channels == 1:
        grey = grey_of(images).float()
        return torch.mul(grey, 1 / (255 * GREY_STD[0]), out=out).sub_(GREY_MEAN[0] / GREY_STD[0])
    scale = torch.tensor(STD, device=images.device).mul(255).reciprocal().view(3, 1, 1)
    shift = torch.tensor(MEAN, device=images.device).div(torch.tensor(STD, device=images.device))
    return torch.mul(images.float(), scale, out=out).sub_(shift.view(3, 1, 1))


def grey_of(images: Tensor) -> Tensor:
    """Returns uint8 [..., 1, H, W] of uint8 [..., 1 or 3, H, W], as PIL makes grey of RGB."""
    if images.shape[-3] == 1:
        return images
    red, green, blue = images.int().unbind(-3)
    grey = (19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16
    return grey.to(torch.uint8).unsqueeze(-3)


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
