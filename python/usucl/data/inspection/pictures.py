"""What is drawn into the pictures of a video: letters and marks that never change, and colours.

Nothing is read: letters are known as rows of small, sharp shapes in every frame alike, so marks of
that kind are found too. The ticks of a ruler, alike and apart, are none. In a still video nothing
tells letters from tissue, so there only what surrounds the sector is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from usucl.data.inspection.sector import Sector, sector_of

FRAMES = 8  # of each video that are looked at, evenly spaced

_CONTRAST = 48  # grey levels: the least by which a stroke differs from what surrounds it
_CHANGES = 40  # grey levels: the most by which a stroke changes over time, by lossy encoding
_MARGIN = 0.05  # of the distance from the sector's centre
_SHARP = 80  # grey levels of contrast, within the sector
_STEADY = 12  # grey levels of change, within the sector
_WHITE = 180  # grey levels of the brightest pixel of a letter, within the sector
_EVEN = 12  # grey levels between the brightest pixels of two letters, within the sector
_SMALLEST = 5  # pixels: height of a letter
_TALLEST = 0.08  # of the frame's height
_WIDEST = 0.3  # of the frame's width: letters that touch are one shape
_FULL = 0.9  # of its box: what fills more is a line or a block
_FEWEST = 3  # letters in a row
_MOST_SHAPES = 4000  # more are texture

_CHROMA = 50  # grey levels between the channels of a coloured pixel
_SHOWN = 60  # grey levels: darker pixels have no colour that is seen
_COLOURED = 0.001  # of all pixels: less is noise
_TINTED = 0.6  # of the bright pixels of the sector: more is a tint of the whole


class Marks(NamedTuple):
    """Rows of letters or similar marks.

    Attributes:
        rows: number of rows.
        where: parts of the frame that hold them, such as ("top left",).
    """

    rows: int
    where: tuple[str, ...]


class Colours(NamedTuple):
    """Coloured pixels.

    Attributes:
        share: of all pixels, in the frame with the most.
        tinted: whether most of the sector has a colour, such as that of a colour map.
        moving: whether they come and go, as blood flow does.
        where: the part of the frame around their centre.
    """

    share: float
    tinted: bool
    moving: bool
    where: str


class Pictures(NamedTuple):
    """What a few frames of a video show; None where there is nothing of a kind."""

    sector: Sector | None
    marks: Marks | None
    colours: Colours | None


def look(frames: Iterable[Tensor]) -> Pictures:
    """Looks at a few frames of one video, each uint8 [3, H, W], of which one is in memory."""
    seen = _Seen()
    sector = sector_of(seen.passing(frames))
    if not seen.count:
        return Pictures(None, None, None)
    return Pictures(sector, _marks(seen, sector), _colours(seen, sector))


class _Seen:
    """Extremes of each pixel over the frames that were passed through."""

    count = 0
    low: np.ndarray  # uint8 [H, W], of the brightest channel
    high: np.ndarray
    coloured: np.ndarray  # uint8 [H, W], in how many frames
    bright: np.ndarray  # likewise: bright enough to have a colour
    most: float = 0.0  # greatest share of coloured pixels in a frame

    def passing(self, frames: Iterable[Tensor]) -> Iterable[Tensor]:
        for frame in frames:
            red, green, blue = frame.numpy()
            top = np.maximum(np.maximum(red, green), blue)
            bottom = np.minimum(np.minimum(red, green), blue)
            shown = top >= _SHOWN
            coloured = shown & (top - bottom >= _CHROMA)
            if not self.count:
                self.low, self.high = top.copy(), top
                self.coloured, self.bright = np.zeros((2, *top.shape), dtype=np.uint8)
            else:
                np.minimum(self.low, top, out=self.low)
                self.high = np.maximum(self.high, top)
            self.coloured += coloured
            self.bright += shown
            self.most = max(self.most, float(coloured.mean()))
            self.count += 1
            yield frame

    @property
    def is_still(self) -> bool:
        """Whether hardly any pixel changes."""
        change = self.high.astype(np.int16) - self.low
        return self.count < 2 or float((change > _CHANGES / 4).mean()) < 0.05


def _colours(seen: _Seen, sector: Sector | None) -> Colours | None:
    if seen.most < _COLOURED:
        return None
    inside = np.ones_like(seen.bright, dtype=bool) if sector is None else sector.mask()
    tinted = seen.coloured[inside].sum() > _TINTED * max(int(seen.bright[inside].sum()), 1)
    ever, always = seen.coloured > 0, seen.coloured == seen.count
    y, x = np.nonzero(ever)
    where = _place(float(np.median(y)), float(np.median(x)), *ever.shape)
    moving = seen.count > 1 and always.sum() < 0.5 * ever.sum()
    return Colours(seen.most, bool(tinted), bool(moving), where)


def _marks(seen: _Seen, sector: Sector | None) -> Marks | None:
    change = seen.high.astype(np.int16) - seen.low
    inside = np.zeros(change.shape, dtype=bool) if sector is None else _widened(sector)
    around = (change <= _CHANGES) & ~inside
    found = _rows(seen.low, around, _CONTRAST)
    found += _rows(255 - seen.high, around, _CONTRAST)  # dark letters on a bright panel
    if not seen.is_still:  # otherwise nothing tells letters from tissue
        found += _rows(seen.low, (change <= _STEADY) & inside, _SHARP, even=True)
    height, width = change.shape
    places = dict.fromkeys(
        _place((top + bottom) / 2, (left + right) / 2, height, width)
        for left, top, right, bottom in found
    )
    return Marks(len(found), tuple(places)) if found else None


def _widened(sector: Sector) -> np.ndarray:
    """Returns bool [height, width]: the sector and a margin, since its edge looks like strokes."""
    corners = np.array(sector.polygon)
    grown = corners.mean(0) + (corners - corners.mean(0)) * (1 + _MARGIN)
    return replace(sector, polygon=tuple((float(x), float(y)) for x, y in grown)).mask()


def _rows(
    picture: np.ndarray, allowed: np.ndarray, contrast: int, *, even: bool = False
) -> list[tuple[int, int, int, int]]:
    """Returns the boxes (left, top, right, bottom) of rows of bright letters.

    Args:
        picture: uint8 [H, W].
        allowed: bool [H, W], where strokes may be.
        contrast: the least between a stroke and what surrounds it, in grey levels.
        even: whether letters must be white, and those of a row equally so, as tissue is not.
    """
    from scipy import ndimage

    height, width = picture.shape
    side = 2 * max(3, round(0.015 * height)) + 1  # wider than a stroke
    strokes = picture.astype(np.int16) - ndimage.grey_opening(picture, (side, side))
    labels, count = ndimage.label((strokes >= contrast) & allowed, np.ones((3, 3)))
    if count < 2:
        return []
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)])
    high, wide = boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]
    letter = (high >= _SMALLEST) & (high <= max(_TALLEST * height, 2 * _SMALLEST))
    letter &= (wide <= _WIDEST * width) & (areas >= _SMALLEST)
    light = np.asarray(ndimage.maximum(picture, labels, np.arange(count) + 1), dtype=float)
    if even:
        letter &= light >= _WHITE
    kept = np.flatnonzero(letter)
    if not 2 <= len(kept) <= _MOST_SHAPES:
        return []
    boxes, areas, high, wide, light = (a[kept] for a in (boxes, areas, high, wide, light))
    curved = (areas < _FULL * high * wide) & (wide >= 3)
    letters = np.maximum(1, np.rint(wide / (0.8 * high)))
    rows = _linked(boxes, high, light if even else None)
    number = int(rows.max()) + 1
    enough = np.bincount(rows, letters, number) >= _FEWEST
    enough &= np.bincount(rows, curved * letters, number) >= _FEWEST / 2
    enough &= np.bincount(rows, curved, number) >= np.bincount(rows, ~curved, number)
    members = [boxes[rows == row] for row in np.flatnonzero(enough)]
    return [(*map(int, b[:, :2].min(0)), *map(int, b[:, 2:].max(0))) for b in members]  # type: ignore[misc]


def _linked(boxes: np.ndarray, high: np.ndarray, light: np.ndarray | None) -> np.ndarray:
    """Returns the number of the row that each box is in: neighbours of like height side by side."""
    from scipy.sparse.csgraph import connected_components

    middle = (boxes[:, 1] + boxes[:, 3]) / 2
    taller = np.maximum(high[:, None], high)
    gap = boxes[:, 0] - boxes[:, 2, None]  # from the right edge of one to the left of another
    near = (gap >= -0.3 * taller) & (gap <= taller)
    near &= np.abs(middle[:, None] - middle) <= 0.35 * taller
    near &= np.minimum(high[:, None], high) >= 0.5 * taller
    if light is not None:
        near &= np.abs(light[:, None] - light) <= _EVEN
    return np.asarray(connected_components(near, directed=False)[1])


def _place(y: float, x: float, height: int, width: int) -> str:
    """Returns the ninth of the frame around a point in words."""
    row = ("top", "", "bottom")[min(2, int(3 * y / height))]
    column = ("left", "", "right")[min(2, int(3 * x / width))]
    return " ".join(filter(None, (row, column))) or "middle"
