"""Grey values of more than 8 bits, shown by one scaling for all frames of a video."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from PIL import Image

from usucl.data.video.base import THUMBNAIL

Range: TypeAlias = tuple[float, float]
"""What is black and what is white."""


class GreyRange:
    """The least and the greatest value of a video's frames, while they are read one by one."""

    def __init__(self) -> None:
        self._low, self._high = np.inf, -np.inf
        self._small: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        """Takes the next frame, [H, W].

        Raises:
            ValueError: there are values that are not finite.
        """
        low, high = _ends(values)
        self._low, self._high = min(self._low, low), max(self._high, high)
        picture = Image.fromarray(values.astype(np.float32))
        small = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
        self._small.append(np.asarray(small))

    @property
    def found(self) -> Range | None:
        """What is black and white; None if there was no frame."""
        return (self._low, self._high) if self._small else None

    def thumbnails(self) -> list[np.ndarray]:
        """Returns the thumbnails of the frames, uint8 [32, 32]."""
        return [spread(small, (self._low, self._high)) for small in self._small]


def spread(values: np.ndarray, black_white: Range) -> np.ndarray:
    """Returns values from black to white as uint8, 0 to 255.

    Raises:
        ValueError: there are values that are not finite.
    """
    if values.dtype.kind == "f":
        _ends(values)
    low, high = black_white
    shown = (values.astype(np.float64) - low) * (255 / max(high - low, 1e-300))
    return shown.clip(0, 255).round().astype(np.uint8)


def _ends(values: np.ndarray) -> Range:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("there are values that are not finite")
    return low, high
