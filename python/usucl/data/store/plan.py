"""Which videos a frame store is going to hold, and how large it will be, before it is made."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from usucl._files import size_in_words
from usucl.data.catalog.entry import VideoEntry
from usucl.data.store.cache import place, store_folder
from usucl.data.store.frames import resized_size
from usucl.data.video import Video
from usucl.data.video.base import THUMBNAIL
from usucl.data.video.stored import PixelFile


@dataclass(frozen=True)
class StorePlan:
    """A frame store that can be made.

    Attributes:
        entries: all videos.
        short_side: short side of the stored frames in pixels.
        limit_bytes: greatest size of all stored frames.
        folder: where the files are; None if there is no such place.
        places: the file of each video, None where there is none.
        sizes: bytes of each video's stored frames: those of grey frames until they are decoded.
        ready: for each video, whether nothing has to be decoded.
    """

    entries: tuple[VideoEntry, ...]
    short_side: int
    limit_bytes: int
    folder: Path | None
    places: tuple[Path | None, ...]
    sizes: tuple[int, ...]
    ready: tuple[bool, ...]

    @classmethod
    def of(
        cls,
        entries: Sequence[VideoEntry],
        short_side: int,
        limit_bytes: int,
        folder: Path | None = None,
    ) -> StorePlan:
        """Plans a store; nothing is decoded.

        Args:
            entries: the videos.
            short_side: short side of the stored frames in pixels.
            limit_bytes: greatest size of all stored frames.
            folder: where the files are (default: ``frames`` in the package's cache).
        """
        folder = store_folder() if folder is None else folder
        places: list[Path | None] = []
        sizes: list[int] = []
        ready: list[bool] = []
        for entry in entries:
            video = entry.open()
            direct = is_direct(video, short_side)
            file = None if folder is None or direct else place(folder, video, short_side)
            grey = len(video) * math.prod(resized_size(video, short_side))
            there = file is not None and file.is_file()
            coloured = (
                there
                and file is not None
                and file.stat().st_size > 3 * grey + len(video) * THUMBNAIL**2
            )
            places.append(file)
            sizes.append(0 if direct else 3 * grey if coloured else grey)
            ready.append(direct or there)
        made = (tuple(places), tuple(sizes), tuple(ready))
        return cls(tuple(entries), short_side, limit_bytes, folder, *made)

    @property
    def videos(self) -> int:
        """Number of videos that may fit: those before the first that does not."""
        left = self.limit_bytes
        for number, size in enumerate(self.sizes):
            left -= size
            if left < 0:
                return number
        return len(self.sizes)

    @property
    def bytes(self) -> tuple[int, int]:
        """The least size, if all that have to be decoded are grey, and the greatest."""
        least = sum(self.sizes[: self.videos])
        return least, min(least + self.missing_bytes * 2 // 3, self.limit_bytes)

    @property
    def missing_bytes(self) -> int:
        """Greatest size of what has to be decoded."""
        chosen = zip(self.sizes[: self.videos], self.ready, strict=False)
        return min(3 * sum(size for size, ready in chosen if not ready), self.limit_bytes)

    @property
    def key(self) -> str:
        """A name of the set of files."""
        return hashlib.sha256("\n".join(map(str, self.places)).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        least, most = map(size_in_words, self.bytes)
        size = least if least == most else f"{least} (if all are grey) to {most}"
        every = self.videos == len(self.entries)
        which = f"{len(self.entries)}" if every else f"{self.videos} of {len(self.entries)}"
        ready = sum(self.ready[: self.videos])
        earlier = f", {ready} of them decoded before" if ready else ""
        rest = "" if every else "; the others are decoded each time"
        where = f" in {self.folder}" if self.folder is not None and any(self.bytes) else ""
        return f"{which} videos at {self.short_side} px{earlier}: {size}{where}{rest}"


def is_direct(video: Video, short_side: int) -> bool:
    """Returns whether a video is stored with the short side already, so no copy would be faster."""
    return isinstance(video, PixelFile) and min(video.height, video.width) == short_side
