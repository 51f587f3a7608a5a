"""Where the copy of each video lies: in the same folders as the video, under the same name."""

from __future__ import annotations

import itertools
import re
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.identity import same_name, without_suffix


@dataclass(frozen=True)
class Shard:
    """One of several parts of a conversion.

    Attributes:
        number: counted from 0.
        count: number of parts.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Returns the shard that ``I/N`` names.

        Raises:
            ValueError: it names none.
        """
        if found := re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text):
            shard = cls(int(found[1]), int(found[2]))
            if shard.number < shard.count:
                return shard
        raise ValueError(f"must be I/N with I from 0 to N - 1, such as 0/8, got {text!r}")

    def __contains__(self, id: object) -> bool:
        """Returns whether the video belongs to the shard, whatever other videos there are."""
        return zlib.crc32(str(id).encode("utf-8", "surrogateescape")) % self.count == self.number


def places(root: Path, entries: Sequence[VideoEntry]) -> list[PurePosixPath]:
    """Returns the relative path of each video's copy, without a suffix.

    It is the path of the video without its suffix, or with it if two would be alike. Where a
    folder of frames holds further videos, its own frames go into a folder of the same name in it.
    """
    whole, bare = [], []
    relatives = [PurePosixPath(entry.path.relative_to(root).as_posix()) for entry in entries]
    tops = {PurePosixPath(relative.parts[0]) for relative in relatives if relative.parts}
    for entry, relative in zip(entries, relatives, strict=True):
        if not relative.parts:  # the root itself is a folder of frames
            relative = _free(PurePosixPath(), root.resolve().name or "video", tops)
        whole.append(relative)
        bare.append(relative if entry.path.is_dir() else without_suffix(relative))
    alike = Counter(map(_alike, bare))
    chosen = [b if alike[_alike(b)] == 1 else w for w, b in zip(whole, bare, strict=True)]
    above = {parent for place in chosen for parent in place.parents}
    taken = above.union(chosen)
    for number, place in enumerate(chosen):
        if place in above:
            chosen[number] = _free(place, place.name, taken)
    return chosen


def _free(folder: PurePosixPath, name: str, taken: Collection[PurePosixPath]) -> PurePosixPath:
    """Returns the first of name, name-2, name-3, ... in a folder that is not taken."""
    further = (folder / f"{name}-{n}" for n in itertools.count(2))
    return next(path for path in itertools.chain([folder / name], further) if path not in taken)


def names(places: Sequence[PurePosixPath]) -> list[str]:
    """Returns what a table calls each copy: its name or, where that is not unique, its path."""
    times = Counter(same_name(place.name) for place in places)
    return [
        same_name(place.name) if times[same_name(place.name)] == 1 else place.as_posix()
        for place in places
    ]


def _alike(place: PurePosixPath) -> str:
    return same_name(place.as_posix()).casefold()
