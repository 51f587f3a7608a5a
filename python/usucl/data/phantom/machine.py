"""The machine that shows a sweep: what all frames of a video share, whatever is in view."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Machine:
    """The look of a machine with its settings.

    Attributes:
        along, across: width of the point-spread function, in samples along a beam and in beams:
            the size of the speckle.
        noise: amplitude of the electronic noise, where that of tissue is about 1.
        gamma: exponent of the grey map.
        sharpening: added share of the difference from a blurred image; negative smooths.
        persistence: weight of the frame before, in [0, 1).
        background: grey around the sector, in [0, 1].
        marks: bars on the screen: top, left, height and width as shares of the image, and grey.
    """

    along: float = 1.0
    across: float = 1.7
    noise: float = 0.01
    gamma: float = 1.0
    sharpening: float = 0.0
    persistence: float = 0.0
    background: float = 0.0
    marks: tuple[tuple[float, float, float, float, float], ...] = ()

    def blur(self, signal: Tensor) -> Tensor:
        """Applies the point-spread function to ``[T, 2, SAMPLES, BEAMS]``; keeps the variance."""
        flat = signal.reshape(-1, 1, *signal.shape[2:])
        for width, axis in ((self.along, 2), (self.across, 3)):
            reach = max(5, math.ceil(2.9 * width))
            kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1.0) / width) ** 2)
            shape, padding = [1, 1, 1, 1], [0, 0]
            shape[axis], padding[axis - 2] = -1, reach
            flat = functional.conv2d(flat, (kernel / kernel.norm()).view(shape), padding=padding)
        return flat.view_as(signal)

    def display(self, grey: Tensor) -> Tensor:
        """Processes the grey values ``[T, SAMPLES, BEAMS]`` in [0, 1] of a sweep."""
        if self.persistence:
            shown = [grey[0]]
            for frame in grey[1:]:
                shown.append(torch.lerp(frame, shown[-1], self.persistence))
            grey = torch.stack(shown)
        if self.sharpening:
            smooth = functional.avg_pool2d(grey.unsqueeze(1), 3, 1, 1, count_include_pad=False)
            grey = (grey + self.sharpening * (grey - smooth.squeeze(1))).clamp(0, 1)
        return grey if self.gamma == 1 else grey**self.gamma

    def screen(self, images: Tensor, sector: Tensor) -> Tensor:
        """Puts images ``[T, S, S]`` in [0, 1] on the screen; ``sector`` ``[S, S]`` is bool."""
        if self.background:
            images = images.where(sector, self.background)
        size = images.shape[-1]
        for top, left, height, width, grey in self.marks:
            row, column = round(top * size), round(left * size)
            rows = slice(row, row + max(1, round(height * size)))
            columns = slice(column, column + max(1, round(width * size)))
            images[:, rows, columns] = grey
        return images


PLAIN = Machine()


def make_machine(rng: np.random.Generator) -> Machine:
    """Draws the look of a machine."""
    marks = []
    for _ in range(rng.integers(2, 6)):
        edge, place = rng.uniform(0.01, 0.06), rng.uniform(0.02, 0.8)
        height, width = rng.uniform(0.01, 0.03), rng.uniform(0.03, 0.16)
        top, left = ((edge, place), (0.97 - edge, place), (place, edge))[rng.integers(3)]
        marks.append((top, left, height, width, rng.uniform(0.4, 1)))
    return Machine(
        along=rng.uniform(0.8, 1.8),
        across=rng.uniform(1.2, 3.0),
        noise=10 ** rng.uniform(-2.3, -1.4),
        gamma=rng.uniform(0.7, 1.6),
        sharpening=rng.uniform(-0.7, 1.0),
        persistence=rng.uniform(0, 0.5),
        background=max(0.0, rng.uniform(-0.08, 0.1)),
        marks=tuple(marks),
    )
