"""Views of many frames at once: one sampling of the frames, then brightness, then the tone curve.

Pixels are float32 until the tone curve, a table of the 256 grey levels that a screen shows, so a
view is rounded to 8 bits once. A view depends on its frame and its seed alone, to the bit: pixels
of several views go through additions, products, quotients and roots only, which round alike
wherever in a tensor a number stands.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from usucl.data.augmentation.beams import find_sectors
from usucl.data.augmentation.draws import (
    Draws,
    Shadows,
    draw_geometry,
    draw_shadows,
    draw_time_gain,
    draw_tones,
)
from usucl.data.augmentation.options import UltrasoundAugmentation
from usucl.data.augmentation.speckle import COLUMNS, ROWS, speckle_field

PIXELS = 2**18  # per step: few enough for the cache, enough to make Python's share small
WHITE = 255
NO_CURVE = (1.0, 0.0, 0.0, 0.0)
EDGE = 0.06  # depth over which a shadow sets in
COARSE = 2  # smooth factors are computed for every second pixel, in both directions


def make_views(
    options: UltrasoundAugmentation, images: Tensor, seeds: list[int], size: int
) -> Iterator[Tensor]:
    """Yields the views of frames of one size, a few at a time: uint8 [m, 1 or 3, size, size].

    Args:
        options: what is changed.
        images: uint8 [n, 1 or 3, H, W].
        seeds: one per image.
        size: side of the views.
    """
    plan = _Plan(options, images, seeds, size)
    step = max(1, PIXELS // (size * size))
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        views = plan.sampled(images[part].float(), part)
        if views.shape[1] == 1:
            yield plan.lit(views[:, 0], part).unsqueeze(1)
            continue
        # All channels are changed by one factor, which keeps the hues of an overlay.
        brightest = views.amax(1)
        wanted = plan.lit(brightest.clone(), part).float()
        factor = (wanted / brightest.clamp_(min=0.5)).unsqueeze(1)
        yield views.mul_(factor).clamp_(0, WHITE).round_().to(torch.uint8)


class _Plan:
    """What the seeds of a batch have decided: arrays with one row per view."""

    def __init__(
        self, options: UltrasoundAugmentation, images: Tensor, seeds: list[int], size: int
    ) -> None:
        self.size = size
        draws, sectors = Draws(seeds), find_sectors(images, options.sector)
        matrix = draw_geometry(options, draws, sectors)
        height, width = sectors.size
        self.to_frame = matrix * np.array([2 / width, 2 / height])[:, None]
        self.to_frame[:, :, 2] -= 1  # in [-1, 1], as grid_sample has it
        self.from_probe = matrix.copy()
        self.from_probe[:, :, 2] -= sectors.probe
        self.from_probe /= sectors.depth[:, None, None]
        self.divergence = sectors.divergence * sectors.depth
        self.gain = draws.value("gain", options.gain, options.gain_probability, 1.0)
        self.curves = draw_time_gain(options, draws)
        self.shadows: Shadows = draw_shadows(options, draws, sectors.face / sectors.depth)
        speckle, likely = options.speckle, options.speckle_probability
        self.speckle = draws.value("speckle", speckle, likely, 0.0)
        self.speckle_place = draws["speckle"][:, 2:]
        self.tones = torch.from_numpy(draw_tones(options, draws))

    def sampled(self, images: Tensor, part: slice) -> Tensor:
        """Returns crop, zoom, rotation and flip of images: float32 [m, 1 or 3, S, S]."""
        grid = _places(self.to_frame[part], self.size, self.size)
        return functional.grid_sample(images, grid, align_corners=False)

    def lit(self, levels: Tensor, part: slice) -> Tensor:
        """Returns grey levels [m, S, S] under other settings: uint8. It overwrites ``levels``."""
        levels *= _column(self.gain[part])
        numbers = np.arange(len(self.gain))[part]
        shaded = (self.curves != NO_CURVE).any(1) | (self.shadows.strength > 0)
        speckled = self.speckle > 0
        some = numbers[(shaded | speckled)[part]]
        if len(some):
            across, depth = self._beams(some)
            factors = _full(self._shade(some, across, depth), self.size)
            for number, factor in zip(some.tolist(), factors, strict=True):
                if shaded[number]:
                    levels[number - part.start] *= factor
            of_some = np.flatnonzero(speckled[some])
            for number, place in zip(some[of_some].tolist(), of_some.tolist(), strict=True):
                levels[number - part.start] *= self._grains(number, across[place], depth[place])
        index = levels.clamp_(0, WHITE).round_().to(torch.int64).flatten(1)
        return self.tones[part].gather(1, index).view_as(levels)

    def _beams(self, some: np.ndarray) -> tuple[Tensor, Tensor]:
        """Returns beam coordinates of every second pixel of some views, in units of the depth.

        With c = divergence and (x, y) from the probe, the beams meet at (0, -1 / c), and a pixel
        has the distance hypot(x, y + 1 / c) - 1 / c from the probe's face. Both are written so that
        c may be 0, for parallel beams.

        Returns:
            Place of the beam on the probe's face, from its middle, and depth along the beam, within
            [0, 1]: float32 [m, S / 2, S / 2] each.
        """
        x, y = _places(self.from_probe[some], self.size, -(-self.size // COARSE)).unbind(3)
        c = _column(self.divergence[some])
        n = c * (x * x + y * y) + 2 * y
        depth = n / ((c * n + 1).clamp_(min=0).sqrt_() + 1)
        return x / (c * y + 1).clamp_(min=0.1), depth.clamp_(0, 1)

    def _shade(self, some: np.ndarray, across: Tensor, depth: Tensor) -> Tensor:
        """Returns the factors of time gain and shadow at beam coordinates: float32 [m, s, s]."""
        constant, linear, square, cubic = (_column(c) for c in self.curves[some].T)
        factor = ((depth * cubic + square) * depth + linear) * depth + constant
        shadows = self.shadows
        if (shadows.strength[some] > 0).any():
            offset = (across - _column(shadows.centre[some])) / _column(shadows.width[some])
            profile = (1 - offset * offset).clamp_(min=0)
            below = ((depth - _column(shadows.start[some])) / EDGE).clamp_(0, 1)
            factor *= 1 - profile * below * _column(shadows.strength[some])
        return factor

    def _grains(self, number: int, across: Tensor, depth: Tensor) -> Tensor:
        """Returns what speckle multiplies a view by, from its place in the field: [S, S].

        A grain has its nominal width at half the depth.
        """
        widening = float(1 + self.divergence[number] / 2)
        x, y = self.speckle_place[number].tolist()
        place = torch.stack(
            [
                across * (widening * 2 / COLUMNS) + (2 * x - 1) / COLUMNS,
                depth * (2 / ROWS) + (y * 2 / ROWS - 1),
            ]
        )
        grid = _full(place, self.size).permute(1, 2, 0)[None]
        field = speckle_field(self.size)
        noise = functional.grid_sample(field, grid, padding_mode="border", align_corners=False)
        return noise[0, 0].mul_(float(self.speckle[number])).add_(1).clamp_(min=0)


def _places(matrix: np.ndarray, size: int, steps: int) -> Tensor:
    """Returns where pixels of views lie, evenly spaced from the first to the last.

    Args:
        matrix: float64 [n, 2, 3] from coordinates in [-1, 1] of the view.
        size: side of the views.
        steps: number of rows and columns.

    Returns:
        x and y: float32 [n, steps, steps, 2].
    """
    first = (size - 1) / size
    along = np.linspace(-first, first, steps)
    columns = matrix[:, None, :, 0] * along[:, None] + matrix[:, None, :, 2]
    rows = matrix[:, None, :, 1] * along[:, None]
    x_and_y = [
        torch.view_as_complex(torch.from_numpy(part.astype(np.float32))) for part in (columns, rows)
    ]  # complex numbers, for one sum over contiguous memory
    return torch.view_as_real(x_and_y[0][:, None, :] + x_and_y[1][:, :, None])


def _full(coarse: Tensor, size: int) -> Tensor:
    """Interpolates [m, s, s], whose corners are pixels, to all pixels: [m, size, size]."""
    return functional.interpolate(coarse[None], (size, size), mode="bilinear", align_corners=True)[
        0
    ]


def _column(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).view(-1, 1, 1)
