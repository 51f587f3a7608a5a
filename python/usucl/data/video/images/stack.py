"""Videos in one image file: multi-page TIFF, animated WebP and PNG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from usucl.data.video.base import Damaged, Video, VideoError, seconds
from usucl.data.video.images.grey import GreyRange
from usucl.data.video.images.image import (
    EIGHT_BITS,
    depth,
    displayed,
    opened_image,
    pages,
    thumbnail,
)
from usucl.data.video.limits import check_cost


class ImageStack(Video):
    """The pictures of one image file, in their order, timed if it is an animation."""

    _FACTS = (*Video._FACTS, "_pages", "_range")

    def __init__(self, path: Path, damaged: Damaged = "skip") -> None:
        self.path = path
        kept: list[int] = []
        self.width = self.height = 0
        self.frame_rate = None
        starts: list[float | None] = []
        thumbnails: list[np.ndarray] = []
        greys = GreyRange()
        deep = ""
        start: float | None = 0.0
        with opened_image(path, path) as image:
            there = pages(image, path)
            if len(there) < 2:
                raise VideoError(path, "a single image, not a video")
            for page in there:
                try:
                    image.seek(page)
                    check_cost(path, *image.size, len(there))
                    image.load()
                    bits = depth(image)
                    if bits == EIGHT_BITS:
                        picture = displayed(image)
                        height, width = picture.shape[:2]
                    else:
                        width, height = image.size
                        greys.add(np.asarray(image))
                except VideoError:
                    raise
                except Exception as error:  # as in opened_image
                    self.damage = (
                        f"damaged: picture {len(kept)} of {len(there)} cannot be decoded "
                        f"({str(error) or type(error).__name__})"
                    )
                    if damaged == "skip":
                        raise VideoError(path, self.damage) from error
                    break
                if kept and (width, height) != (self.width, self.height):
                    raise VideoError(
                        path,
                        f"frames differ in size: frame {len(kept)} is {width}x{height}, "
                        f"the frames before it are {self.width}x{self.height}",
                    )
                if kept and bits != deep:
                    raise VideoError(
                        path,
                        f"frames differ in depth: frame {len(kept)} has {bits}, "
                        f"the frames before it have {deep}",
                    )
                self.width, self.height, deep = width, height, bits
                kept.append(page)
                if bits == EIGHT_BITS:
                    thumbnails.append(thumbnail(Image.fromarray(picture)))
                starts.append(start)
                duration = image.info.get("duration")  # ms
                start = start + duration / 1000 if duration and start is not None else None
        if not kept:
            raise VideoError(path, self.damage or "no frame could be decoded")
        self._range = greys.found
        self.thumbnails = np.stack(thumbnails or greys.thumbnails())
        self._pages = tuple(kept)
        self.num_frames = len(kept)
        self.times = seconds(starts)
        if self.times is not None and self.num_frames > 1:
            self.frame_rate = float((self.num_frames - 1) / self.times[-1])

    def _decode(self, indices: list[int]) -> Iterator[np.ndarray]:
        with opened_image(self.path, self.path) as image:
            for index in indices:
                image.seek(self._pages[index])
                yield displayed(image, self._range)
