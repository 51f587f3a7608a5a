"""The random numbers of views, and the crops, curves and shadows that they stand for.

A view's numbers come from its own seed, and an option's from their own places among them: what one
option does is the same whether another is switched on or not. Arithmetic is in float64, per view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from usucl.data.augmentation.beams import Sectors
from usucl.data.augmentation.options import Range, UltrasoundAugmentation

TRIES = 10  # places for a crop
SLIDERS = 4  # of the time-gain compensation
GREYS = 256

# How many numbers each draw takes; a new one goes to the end, or views change.
_COUNTS = {
    "crop": 3,
    "crop_place": 2 * TRIES,
    "flip": 1,
    "rotation": 2,
    "zoom": 2,
    "gain": 2,
    "time_gain": 1 + SLIDERS,
    "contrast": 2,
    "gamma": 2,
    "speckle": 4,
    "shadow": 5,
}


class Draws:
    """Random numbers in [0, 1) of n views: float64 [n, count] for each of ``_COUNTS``.

    Args:
        seeds: one per view; 64 bits of each count.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        total = sum(_COUNTS.values())
        self._numbers = np.empty((len(seeds), total))
        for row, seed in zip(self._numbers, seeds, strict=True):
            np.random.Generator(np.random.Philox(key=seed % 2**64)).random(out=row)
        starts = np.cumsum([0, *_COUNTS.values()]).tolist()
        self._places = {
            name: slice(start, start + count)
            for (name, count), start in zip(_COUNTS.items(), starts[:-1], strict=True)
        }

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._numbers[:, self._places[name]]

    def value(self, name: str, bounds: Range, probability: float, neutral: float) -> np.ndarray:
        """Returns values within ``bounds``, ``neutral`` where the option is not applied: [n]."""
        applied = self[name][:, 0] < probability
        return np.where(applied, _between(bounds, self[name][:, 1]), neutral)


def _between(bounds: Range, number: np.ndarray) -> np.ndarray:
    return bounds[0] + (bounds[1] - bounds[0]) * number


def draw_geometry(options: UltrasoundAugmentation, draws: Draws, sectors: Sectors) -> np.ndarray:
    """Returns the crop, zoom, rotation and flip of every view: float64 [n, 2, 3].

    A pixel at (x, y) in [-1, 1] of the view shows ``m[:, :2] @ (x, y) + m[:, 2]`` of the frame.
    """
    n, probe = len(draws), sectors.probe
    zoom = draws.value("zoom", options.zoom, options.zoom_probability, 1.0)
    windows = _windows(options, draws, sectors, zoom)
    centre = (windows[:, :2] + windows[:, 2:]) / 2
    half = (windows[:, 2:] - windows[:, :2]) / 2
    degrees = draws.value("rotation", options.rotation, options.rotation_probability, 0.0)
    # Python's own functions round alike whatever stands beside a number in an array.
    cos = np.array([math.cos(math.radians(d)) for d in degrees.tolist()])
    sin = np.array([math.sin(math.radians(-d)) for d in degrees.tolist()])
    turn = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1) / zoom[:, None, None]
    mirrored = np.where(draws["flip"][:, 0] < options.flip, -1.0, 1.0)
    scale = half * np.stack([mirrored, np.ones(n)], 1)
    away = centre - probe
    shift = probe + turn[:, :, 0] * away[:, :1] + turn[:, :, 1] * away[:, 1:]
    return np.concatenate([turn * scale[:, None, :], shift[:, :, None]], 2)


def _windows(
    options: UltrasoundAugmentation,
    draws: Draws,
    sectors: Sectors,
    zoom: np.ndarray,
) -> np.ndarray:
    """Returns left, top, right and bottom of each view in the zoomed frame: float64 [n, 4]."""
    (height, width), n = sectors.size, len(draws)
    short = min(height, width)
    left, top = round((width - short) / 2), round((height - short) / 2)
    whole = np.tile(np.array([left, top, left + short, top + short], float), (n, 1))
    if options.crop == (1.0, 1.0):
        return whole
    area = _between(options.crop, draws["crop"][:, 1])
    aspect = _between(options.crop_aspect, draws["crop"][:, 2])
    across = np.minimum(short * np.sqrt(area * aspect), width)
    down = np.minimum(short * np.sqrt(area / aspect), height)
    probe = np.tile(sectors.probe, (1, 2))[:, None, :]
    box = (probe[:, 0] + (sectors.box - probe[:, 0]) * zoom[:, None])[:, None, :]
    size, frame = np.stack([across, down], 1)[:, None, :], np.array([width, height])
    ends = box[..., :2], box[..., 2:] - size
    first, last = (end.clip(0, frame - size) for end in (np.minimum(*ends), np.maximum(*ends)))
    corner = first + draws["crop_place"].reshape(n, TRIES, 2) * (last - first)
    tried = np.concatenate([corner, corner + size], 2)
    share = sectors.share(probe + (tried - probe) / zoom[:, None, None])
    enough = share >= options.min_sector
    chosen = np.where(enough.any(1), enough.argmax(1), share.argmax(1))
    cropped = draws["crop"][:, 0] < options.crop_probability
    return np.where(cropped[:, None], tried[np.arange(n), chosen], whole)


def draw_time_gain(options: UltrasoundAugmentation, draws: Draws) -> np.ndarray:
    """Returns cubics of the depth (0 to 1), constant term first: float64 [n, 4].

    They are Bézier curves, whose values lie between those of their sliders.
    """
    sliders = _between(options.time_gain, draws["time_gain"][:, 1:])
    applied = draws["time_gain"][:, :1] < options.time_gain_probability
    a, b, c, d = np.where(applied, sliders, 1.0).T
    return np.stack([a, 3 * (b - a), 3 * (a - 2 * b + c), d - 3 * c + 3 * b - a], 1)


def draw_tones(options: UltrasoundAugmentation, draws: Draws) -> np.ndarray:
    """Returns the tone curve of each view: uint8 [n, 256]."""
    contrast = draws.value("contrast", options.contrast, options.contrast_probability, 1.0)
    gamma = draws.value("gamma", options.gamma, options.gamma_probability, 1.0)
    grey = np.arange(GREYS) / (GREYS - 1)
    curved = np.stack([grey**exponent for exponent in gamma.tolist()])
    curved += 2 * (contrast[:, None] - 1) * curved * (1 - curved) * (2 * curved - 1)
    return np.rint((GREYS - 1) * curved.clip(0, 1)).astype(np.uint8)


@dataclass(frozen=True)
class Shadows:
    """Acoustic shadows, in units of the depth.

    Attributes:
        strength: float64 [n]; 0 is none.
        centre, width: float64 [n], of the shadow's middle on the probe's face, and half its width.
        start: float64 [n], depth at which it begins.
    """

    strength: np.ndarray
    centre: np.ndarray
    width: np.ndarray
    start: np.ndarray


def draw_shadows(options: UltrasoundAugmentation, draws: Draws, face: np.ndarray) -> Shadows:
    """Returns the shadow of every view.

    Args:
        options: what to draw.
        draws: the random numbers.
        face: float64 [n], width of the probe's face, in units of the depth.
    """
    _, _, place, width, start = draws["shadow"].T
    return Shadows(
        draws.value("shadow", options.shadow, options.shadow_probability, 0.0),
        (place - 0.5) * face,
        _between(options.shadow_width, width) * face / 2,
        _between(options.shadow_start, start),
    )
