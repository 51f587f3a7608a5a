"""The options of ultrasound augmentation, their ranges, and the recipes."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from usucl._ranges import check_range
from usucl._spelling import did_you_mean

Range = tuple[float, float]

# Least and greatest value of each option. A contrast above 1.5 would no longer be monotonic.
_RANGES = {
    "crop": (0.05, 1.0),
    "crop_aspect": (0.5, 2.0),
    "rotation": (-45.0, 45.0),
    "zoom": (0.5, 2.0),
    "gain": (0.0, 4.0),
    "time_gain": (0.0, 4.0),
    "contrast": (0.0, 1.5),
    "gamma": (0.25, 4.0),
    "speckle": (0.0, 1.0),
    "shadow": (0.0, 1.0),
    "shadow_width": (0.01, 1.0),
    "shadow_start": (0.0, 1.0),
}


@dataclass(frozen=True)
class UltrasoundAugmentation:
    """Random changes of a frame that another probe, machine or setting could have made.

    For every view, each option is applied with its probability, and its value is drawn evenly from
    its range ``(lo, hi)``. The defaults change nothing, so only what is named is applied. Crop,
    zoom, rotation and flip are one sampling of the frame, so that it is blurred once. What depends
    on the beams (time gain, speckle, shadow, zoom, rotation) takes them from the frame itself: the
    part that is not black tells where the probe is and how the beams diverge.

    Attributes:
        crop: area of the view, as a share of the square that fits into the frame; (1, 1) is that
            square in the middle of the frame, which an encoder sees without augmentation.
        crop_aspect: width of the crop divided by its height; the view is square all the same.
        crop_probability: share of the views that are cropped; the others show the whole square.
        min_sector: least share of a crop that must lie in the sector. Ten places are tried, and
            the best of them is taken if none reaches it.
        sector: (left, top, right, bottom) of a box around the sector, as shares of the frame, for
            videos with text or other bright marks beside it; None to rely on the frame alone.
        flip: share of the views that are mirrored, left to right.
        rotation: angle about the probe, in degrees; positive is clockwise.
        rotation_probability: share of the views that are rotated.
        zoom: magnification with the probe in place, as a shallower (> 1) or deeper (< 1) setting
            of the depth shows the same tissue.
        zoom_probability: share of the views that are zoomed.
        gain: factor of all grey levels.
        gain_probability: share of the views whose gain is changed.
        time_gain: factors of the grey levels at four depths, with a smooth curve through the depths
            between: the sliders of the time-gain compensation.
        time_gain_probability: share of the views with a time-gain curve.
        contrast: slope of the tone curve at mid-grey; black and white stay.
        contrast_probability: share of the views whose contrast is changed.
        gamma: exponent of the tone curve; below 1 is brighter.
        gamma_probability: share of the views whose gamma is changed.
        speckle: relative standard deviation of multiplicative noise, distributed as log-compressed
            Rayleigh speckle, in grains that lie along the beams and widen with them.
        speckle_probability: share of the views with added speckle.
        shadow: share of the light that an acoustic shadow takes in its middle.
        shadow_width: width of the shadow, as a share of the probe's face; it widens with the beams.
        shadow_start: depth at which the shadow begins, as a share of the depth; 0 is at the probe.
        shadow_probability: share of the views with a shadow.

    Raises:
        ValueError: an option is outside of its range; the message names it.
        TypeError: an option is no number or no pair of numbers.
    """

    crop: Range = (1.0, 1.0)
    crop_aspect: Range = (1.0, 1.0)
    crop_probability: float = 1.0
    min_sector: float = 0.7
    sector: tuple[float, float, float, float] | None = None
    flip: float = 0.0
    rotation: Range = (0.0, 0.0)
    rotation_probability: float = 1.0
    zoom: Range = (1.0, 1.0)
    zoom_probability: float = 1.0
    gain: Range = (1.0, 1.0)
    gain_probability: float = 1.0
    time_gain: Range = (1.0, 1.0)
    time_gain_probability: float = 1.0
    contrast: Range = (1.0, 1.0)
    contrast_probability: float = 1.0
    gamma: Range = (1.0, 1.0)
    gamma_probability: float = 1.0
    speckle: Range = (0.0, 0.0)
    speckle_probability: float = 1.0
    shadow: Range = (0.0, 0.0)
    shadow_width: Range = (0.1, 0.3)
    shadow_start: Range = (0.0, 0.0)
    shadow_probability: float = 1.0

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in _RANGES:
                object.__setattr__(self, option.name, _checked_range(option.name, value))
            elif option.name != "sector":
                if not _is_number(value):
                    raise TypeError(f"{option.name} must be a number in [0, 1], got {value!r}")
                check_range(option.name, value, 0, 1)
        if self.sector is not None:
            object.__setattr__(self, "sector", _checked_box(self.sector))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> UltrasoundAugmentation:
        """Returns the augmentation with options by name, as in a configuration file.

        Args:
            options: fields of this class; ``recipe`` may name one of :data:`RECIPES`, whose values
                the others replace.

        Raises:
            ValueError: an option or the recipe is unknown, or a value is outside of its range.
            TypeError: a value has the wrong type.
        """
        known = [option.name for option in fields(cls)]
        changes = dict(options)
        recipe = changes.pop("recipe", None)
        if recipe is not None and recipe not in RECIPES:
            raise ValueError(
                f"augmentation.recipe must be one of {', '.join(RECIPES)}, got {recipe!r}"
                f"{did_you_mean(str(recipe), RECIPES)}"
            )
        for name in changes:
            if name not in known:
                hint = did_you_mean(str(name), [*known, "recipe"])
                raise ValueError(f"augmentation.{name} is no option of an augmentation{hint}")
        try:
            return replace(cls() if recipe is None else RECIPES[recipe], **changes)
        except (ValueError, TypeError) as error:
            raise type(error)(f"augmentation.{error}") from error

    def options(self) -> dict[str, Any]:
        """Returns the options that differ from the defaults, as :meth:`of` reads them."""
        values = {
            option.name: getattr(self, option.name)
            for option in fields(self)
            if getattr(self, option.name) != option.default
        }
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _checked_range(name: str, value: Any) -> Range:
    least, most = _RANGES[name]
    pair = list(value) if isinstance(value, (tuple, list)) else []
    if len(pair) != 2 or not all(_is_number(bound) for bound in pair):
        raise TypeError(f"{name} must be a pair (lo, hi) in [{least:g}, {most:g}], got {value!r}")
    lo, hi = float(pair[0]), float(pair[1])
    if not least <= lo <= hi <= most:
        raise ValueError(
            f"{name} must be a pair (lo, hi) with {least:g} <= lo <= hi <= {most:g}, "
            f"got ({lo:g}, {hi:g})"
        )
    return lo, hi


def _checked_box(value: Any) -> tuple[float, float, float, float]:
    sides = list(value) if isinstance(value, (tuple, list)) else []
    if len(sides) != 4 or not all(_is_number(side) for side in sides):
        raise TypeError(f"sector must be (left, top, right, bottom) in [0, 1], got {value!r}")
    left, top, right, bottom = (float(side) for side in sides)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            "sector must be (left, top, right, bottom) with 0 <= left < right <= 1 and "
            f"0 <= top < bottom <= 1, got ({left:g}, {top:g}, {right:g}, {bottom:g})"
        )
    return left, top, right, bottom


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and not math.isnan(float(value))
    )


RECIPES: Mapping[str, UltrasoundAugmentation] = {
    "global": UltrasoundAugmentation(
        rotation=(-6, 6),
        rotation_probability=0.5,
        zoom=(0.85, 1.15),
        zoom_probability=0.5,
        gain=(0.7, 1.3),
        gain_probability=0.8,
        time_gain=(0.75, 1.25),
        time_gain_probability=0.5,
        contrast=(0.6, 1.4),
        contrast_probability=0.5,
        gamma=(0.7, 1.4),
        gamma_probability=0.5,
        speckle=(0.05, 0.2),
        speckle_probability=0.3,
    ),
    "local": UltrasoundAugmentation(
        crop=(0.2, 1.0),
        crop_aspect=(0.75, 1.33),
        min_sector=0.7,
        flip=0.5,
        rotation=(-10, 10),
        rotation_probability=0.5,
        gain=(0.6, 1.4),
        gain_probability=0.8,
        time_gain=(0.75, 1.25),
        time_gain_probability=0.3,
        contrast=(0.6, 1.4),
        contrast_probability=0.5,
        gamma=(0.7, 1.4),
        gamma_probability=0.5,
        speckle=(0.05, 0.2),
        speckle_probability=0.3,
        shadow=(0.3, 0.7),
        shadow_probability=0.1,
    ),
}
"""``global`` keeps what the whole picture means; ``local`` crops, for findings of one place."""
