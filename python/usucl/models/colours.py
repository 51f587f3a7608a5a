"""From the colours of this package's images to those that a network was made for.

An encoder sees ``x = (RGB / 255 - MEAN) / STD`` with ImageNet's statistics or, with one channel,
``x = (grey / 255 - GREY_MEAN) / GREY_STD``. Both are affine functions of the pixels, so what the
network wants is ``scale x + shift`` in each of its three channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from usucl.data.transforms import GREY_MEAN, GREY_STD, LUMA, MEAN, STD


class Colours(nn.Module):
    """Maps an encoder's images to the normalised RGB images that a network was made for.

    The two statistics are kept with the weights: those in the library may change.

    Args:
        channels: 1 or 3, those of the encoder's images.
        mean, std: of the network's images, one number per colour.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, channels: int, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD
    ) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor) -> Tensor:
        """Returns ``[B, 3, S, S]`` of ``[B, 1 or 3, S, S]``."""
        own_mean, own_std = (GREY_MEAN, GREY_STD) if self.channels == 1 else (MEAN, STD)
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (own_mean, own_std))
        theirs = (buffer.to(images.dtype).view(3, 1, 1) for buffer in (self.mean, self.std))
        their_mean, their_std = theirs
        return images * (std / their_std) + (mean - their_mean) / their_std

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean and standard deviation of the network's images, as they were given."""
        mean, std = (tuple(round(v, 6) for v in b.tolist()) for b in (self.mean, self.std))
        return mean, std


class GreyConv2d(nn.Conv2d):
    """A convolution of RGB images that takes grey ones, and gives what it gives for their RGB.

    With ``x_c = scale_c x + shift_c`` for each colour c, the convolution of ``x_1 x_2 x_3`` is that
    of x with ``sum_c scale_c W_c``, which is a third of the work, and that of an image of ones with
    ``sum_c shift_c W_c``, the same for all images. The second is no mere bias: the padding of the
    RGB images is 0 in each colour, which is another grey in each. The weights stay those of RGB, so
    they are read, written and trained as there.
    """

    def _conv_forward(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        std, mean = weight.new_tensor(STD), weight.new_tensor(MEAN)
        scale = (GREY_STD[0] / std).view(3, 1, 1)
        shift = ((GREY_MEAN[0] - mean) / std).view(3, 1, 1)
        summed = (weight * scale).sum(1, keepdim=True)
        of_ones = (weight * shift).sum(1, keepdim=True)
        ones = images.new_ones(1, *images.shape[1:])
        grey = super()._conv_forward(images, summed, bias)
        return grey + super()._conv_forward(ones, of_ones, None)


def is_imagenet(mean: tuple[float, ...], std: tuple[float, ...]) -> bool:
    """Returns whether these are the statistics of this package's RGB images."""
    return (mean, std) == (MEAN, STD)


def take_grey(network: nn.Module, first: str | None) -> bool:
    """Makes a network's first convolution, in place, one of grey images; returns whether it is."""
    convolution = None if first is None else network.get_submodule(first)
    if type(convolution) is not nn.Conv2d or convolution.in_channels != 3:
        return False  # it pads or scales in ways of its own, or is none
    if convolution.groups != 1:
        return False
    convolution.__class__ = GreyConv2d
    return True


def as_grey(images: Tensor) -> Tensor:
    """Returns normalised grey images ``[B, 1, S, S]`` of normalised RGB images.

    The luma of RGB is that of ITU-R BT.601, as in PIL.
    """
    weight = images.new_tensor(LUMA).view(3, 1, 1)
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    grey = (weight * (images * std + mean)).sum(1, keepdim=True)
    return (grey - GREY_MEAN[0]) / GREY_STD[0]
