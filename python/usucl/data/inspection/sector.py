"""The ultrasound sector: the part of the picture that shows tissue, found from the video itself.

Around it, pictures are black or show what does not change: names, scales, colour bars, panels. The
sector changes from frame to frame. Where nothing moves, it is the largest connected part that is
neither black nor plain. Its outline is the convex hull of that, so shadows and dark depths within
belong to it, and a little black above the curved face of a convex probe does too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional

from usucl.data.video import Video

FRAMES = 16  # that are looked at, evenly spaced
SIDE = 256  # pixels: the long side of the pictures in which the sector is sought

_MOVES = 1.5  # grey levels: the least standard deviation over time that is no noise of a codec
_VISIBLE = 5.0  # grey levels above the background
_PLAIN = 6.0  # grey levels: less within 5 x 5 pixels is no texture
_THIN = 0.01  # of the short side: what is thinner than twice this is a line or a letter
_PART = 0.04  # of the largest part's area: smaller ones are no part of the sector
_MOVING_PART = 0.3  # of the area of each part moves, where the largest one does
_MOVING_FRAME = 0.02  # of the picture moves in a video that is no still
_MOST_MOVES = 0.6  # of what is visible, where what does not move is not needed
_FAINT_MOVES = 0.2  # grey levels of mean deviation, in depths that look black
_FAINT = 1.5  # grey levels above the background, and of texture, likewise
_BLACK = 24.0  # grey levels: what is brighter does not look black
_STRIP = 0.05  # of the short side: twice this is as wide as the noise of a codec beside an edge


@dataclass(frozen=True)
class Sector:
    """Where in the frames of a video the tissue is: a convex polygon.

    Attributes:
        height, width: of the frames, in pixels.
        polygon: its corners (x, y) in pixels, clockwise as displayed; the left upper corner of the
            frame is (0, 0), and its right lower corner (width, height).
    """

    height: int
    width: int
    polygon: tuple[tuple[float, float], ...]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The smallest box of whole pixels around it: left, top, right, bottom.

        ``frame[..., top:bottom, left:right]`` is the sector.
        """
        x, y = np.array(self.polygon).T
        left, top = (max(0, int(np.floor(v.min() + 1e-6))) for v in (x, y))
        right = min(self.width, int(np.ceil(x.max() - 1e-6)))
        bottom = min(self.height, int(np.ceil(y.max() - 1e-6)))
        return left, top, right, bottom

    @property
    def share(self) -> float:
        """Its area over that of the frame."""
        x, y = np.array(self.polygon).T
        area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
        return float(area / (self.height * self.width))

    @property
    def is_frame(self) -> bool:
        """Whether it is the whole frame, as in videos that were cropped before."""
        return self.box == (0, 0, self.width, self.height) and self.share > 0.995

    def mask(self, height: int | None = None, width: int | None = None) -> np.ndarray:
        """Returns bool [height, width], true inside; by default in the size of the frames.

        With another size it is the mask of frames that were resized to it.
        """
        height, width = height or self.height, width or self.width
        scale = np.array([width / self.width, height / self.height])
        return _polygon_mask(np.array(self.polygon) * scale, height, width)


def find_sector(video: Video, frames: int = FRAMES) -> Sector | None:
    """Returns the sector of a video from a few of its frames, None if it shows nothing.

    Raises:
        VideoError: the video can no longer be read.
    """
    return sector_of(video.iter_frames(evenly(len(video), frames)))


def evenly(length: int, count: int) -> list[int]:
    """Returns up to ``count`` different indices in [0, length), from the first to the last."""
    places = np.linspace(0, length - 1, min(count, length)).round().astype(int)
    return sorted(set(places.tolist()))


def sector_of(frames: Iterable[Tensor]) -> Sector | None:
    """Returns the sector that frames of one video show, None if they show nothing.

    Args:
        frames: each uint8 [3, H, W]; a few that are far apart are best.
    """
    size, pictures = (0, 0), []
    for frame in frames:
        size = (int(frame.shape[-2]), int(frame.shape[-1]))
        pictures.append(_reduced(frame))
    if not pictures:
        return None
    corners = _outline(np.stack(pictures))
    if corners is None:
        return None
    rows, columns = pictures[0].shape
    scale = np.array([size[1] / columns, size[0] / rows])
    return Sector(*size, tuple((float(x), float(y)) for x, y in corners * scale))


def _reduced(frame: Tensor) -> np.ndarray:
    """Returns the frame in grey, float32 [h, w], its long side ``SIDE`` or less."""
    grey = frame.float().mean(0)
    height, width = grey.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return functional.adaptive_avg_pool2d(grey[None, None], size)[0, 0].numpy()


def _outline(pictures: np.ndarray) -> np.ndarray | None:
    """Returns the corners of the sector in float32 [n, h, w]; None if nothing can be seen."""
    from scipy import ndimage

    peak, deviation = pictures.max(0), pictures.std(0)
    background = np.quantile(peak, 0.01)
    over = peak - background
    brightest = ndimage.maximum_filter(peak, 5)
    texture = brightest - ndimage.minimum_filter(peak, 5)
    moving = deviation >= _MOVES
    bright = _main_parts(moving | ((over >= _VISIBLE) & (texture >= _PLAIN)), moving)
    lively = _main_parts(moving, moving)
    if lively.sum() >= _MOST_MOVES * bright.sum():
        bright = lively  # without letters and scales that touch it
    if not bright.any():
        return None
    # Depths that look black often hold a little noise, and what surrounds the sector does not.
    # Near edges codecs make noise too, but only in thin strips, which the opening takes away.
    outside = ~_polygon_mask(_hull(bright), *bright.shape)
    faint = ndimage.uniform_filter(deviation, 5) >= _FAINT_MOVES
    faint |= (ndimage.uniform_filter(over, 5) >= _FAINT) & (texture >= _FAINT)
    faint &= brightest <= background + _BLACK  # no letters
    dark = _opened(faint & outside, max(1, round(_STRIP * min(peak.shape))))
    parts, _ = ndimage.label(dark)
    beside_the_probe = {int(parts[0, 0]), int(parts[0, -1])}  # where no depth can be
    return _hull(bright | (dark & ~np.isin(parts, list(beside_the_probe))))


def _main_parts(content: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Returns the largest parts of a mask, those that move if any does."""
    from scipy import ndimage

    content = _opened(content, round(_THIN * min(content.shape)))
    labels, count = ndimage.label(content, np.ones((3, 3)))
    if not count:
        return content
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    moved = np.bincount(labels[moving & content], minlength=count + 1)[1:]
    if moved.sum() < _MOVING_FRAME * content.size:
        return np.asarray(labels == 1 + int(areas.argmax()))
    largest = int(moved.argmax())
    kept = (areas >= _PART * areas[largest]) & (moved >= _MOVING_PART * areas)
    kept[largest] = True
    return np.asarray(np.concatenate([[False], kept])[labels])


def _opened(mask: np.ndarray, radius: int) -> np.ndarray:
    """Returns a mask without what is thinner than a disk."""
    from scipy import ndimage

    if not radius or not mask.any() or mask.all():
        return mask
    thick = ndimage.distance_transform_edt(mask) > radius
    if not thick.any():
        return thick
    return np.asarray(mask & (ndimage.distance_transform_edt(~thick) <= radius + 0.5))


def _hull(mask: np.ndarray) -> np.ndarray:
    """Returns the corners (x, y) of the convex hull of the pixels of a mask, clockwise."""
    rows = np.flatnonzero(mask.any(1))
    first = mask[rows].argmax(1)
    last = mask.shape[1] - mask[rows][:, ::-1].argmax(1)
    left = [(int(x), int(y + d)) for x, y in zip(first, rows, strict=True) for d in (0, 1)]
    right = [(int(x), int(y + d)) for x, y in zip(last, rows, strict=True) for d in (0, 1)]
    points = sorted({*left, *right})
    upper, lower = _chain(points), _chain(points[::-1])
    return np.array(upper[:-1] + lower[:-1], dtype=float)


def _polygon_mask(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns bool [height, width]: the pixels whose centres are in a convex polygon."""
    y, x = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    inside = np.ones((height, width), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        inside &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= 0
    return inside


def _chain(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns one half of the hull of sorted points (Andrew's monotone chain)."""
    chain: list[tuple[int, int]] = []
    for x, y in points:
        while len(chain) > 1:
            (x0, y0), (x1, y1) = chain[-2:]
            if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                break
            chain.pop()
        chain.append((x, y))
    return chain
