"""Noise with the statistics of speckle after log compression, made once per size of views."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

ROWS, COLUMNS = 2, 3  # of the field, in sides of a view
GRAIN = (0.005, 0.011)  # standard deviation of a grain along and across the beam, in depths
FINEST = (0.55, 0.8)  # the same in pixels: finer grains would be white noise
DARKEST = -4.0  # standard deviations; log-compressed speckle has a long tail of dark points


@lru_cache(maxsize=4)
def speckle_field(size: int) -> Tensor:
    """Returns a field of noise with mean 0 and variance 1: float32 [1, 1, 2 size, 3 size].

    Scatterers in random places sum to complex Gaussian noise, which the point-spread function
    correlates; its magnitude is Rayleigh-distributed, and the logarithm of that is what a screen
    shows.

    Args:
        size: side of the views in pixels; a view spans about one depth.
    """
    shape = (ROWS * size, COLUMNS * size)
    random = np.random.Generator(np.random.Philox(key=0))
    noise = random.standard_normal(shape) + 1j * random.standard_normal(shape)
    transfer = np.ones(shape)
    for axis, (grain, finest) in enumerate(zip(GRAIN, FINEST, strict=True)):
        frequency = np.fft.fftfreq(shape[axis]) * max(grain * size, finest)
        curve = np.exp(-2 * (np.pi * frequency) ** 2)
        transfer *= curve[:, None] if axis == 0 else curve[None, :]
    level = np.log(np.abs(np.fft.ifft2(np.fft.fft2(noise) * transfer)) + 1e-12)
    level = (level - level.mean()) / level.std()
    level = level.clip(DARKEST, None)
    level = (level - level.mean()) / level.std()
    return torch.from_numpy(level.astype(np.float32))[None, None]
