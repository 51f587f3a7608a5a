"""Videos of still images: one image per frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from usucl.data.video.base import Damaged, Video, VideoError
from usucl.data.video.images.grey import GreyRange
from usucl.data.video.images.image import check_image, displayed, frame_files, opened_image
from usucl.data.video.images.times import read_times
from usucl.data.video.limits import check_cost


class FrameFolder(Video):
    """A folder of still images in natural order (frame2 before frame10), hidden files ignored.

    ``times.csv`` beside them (frame, the name of an image; seconds) gives their times.

    Values of more than 8 bits become 0 to 255 by one scaling for all frames, from their least to
    their greatest value.
    """

    _FACTS = (*Video._FACTS, "_names", "_range")

    def __init__(self, path: Path, damaged: Damaged = "skip") -> None:
        self.path = path
        names: list[str] = []
        files = frame_files(path)
        if not files:
            raise VideoError(path, "no image in the folder")
        greys = GreyRange()
        size, depth, broken, thumbnails = (0, 0), "", [], []
        for file in files:
            try:
                found = check_image(file, path, greys)
            except VideoError as error:
                if damaged == "skip":
                    raise
                broken.append(error.reason)
                continue
            if not names:
                size, depth = found.size, found.depth
                check_cost(path, *size, len(files))
            if found.size != size:
                raise VideoError(
                    path,
                    f"frames differ in size: {names[0]} is {size[0]}x{size[1]}, "
                    f"{file.name} is {found.size[0]}x{found.size[1]}",
                )
            if found.depth != depth:
                raise VideoError(
                    path,
                    f"frames differ in depth: {names[0]} has {depth}, "
                    f"{file.name} has {found.depth}",
                )
            names.append(file.name)
            if found.small is not None:
                thumbnails.append(found.small)
        if not names:
            raise VideoError(path, broken[0])
        if broken:
            self.damage = f"{len(broken)} of {len(files)} images are broken ({broken[0]})"
        self._range = greys.found
        self.thumbnails = np.stack(thumbnails or greys.thumbnails())
        self._names = tuple(names)
        self.num_frames = len(names)
        self.width, self.height = size
        self.frame_rate = None
        self.times = read_times(path, names)
        if self.times is not None and len(names) > 1:
            self.frame_rate = float((len(names) - 1) / self.times[-1])

    def _decode(self, indices: list[int]) -> Iterator[np.ndarray]:
        for index in indices:
            with opened_image(self.path / self._names[index], self.path) as image:
                array = displayed(image, self._range)
            yield array
