"""Whether a file, or the images of a folder, are as they were: by their sizes and times."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from usucl.data.video import is_image
from usucl.data.video.images.times import TIMES


class Stamp(NamedTuple):
    """What changes with a file, or with the images of a folder and the table of their times.

    Attributes:
        key: size and time of modification; of a folder a hash of the names, sizes and times of its
            images.
        changed: when anything about them changed last, also a name or a permission, in ns.
        newest: the latest of all these times, in ns.
    """

    key: str
    changed: int
    newest: int


def stamp_of_file(status: os.stat_result) -> Stamp:
    """Returns the stamp of a file."""
    modified, changed = status.st_mtime_ns, status.st_ctime_ns
    return Stamp(f"{status.st_size}-{modified}", changed, max(modified, changed))


def stamp_of_images(images: Mapping[str, os.stat_result]) -> Stamp:
    """Returns the stamp of the images of a folder, and of ``times.csv`` beside them, by name."""
    lines, changed, newest = [], 0, 0
    for name in sorted(images):
        status = images[name]
        modified, now = status.st_mtime_ns, status.st_ctime_ns
        lines.append(f"{name}/{status.st_size}-{modified}\n")  # a name holds no slash
        changed = max(changed, now)
        newest = max(newest, modified, now)
    text = "".join(lines).encode("utf-8", "surrogateescape")
    return Stamp(hashlib.blake2b(text, digest_size=16).hexdigest(), changed, newest)


def stamp_of(path: Path) -> Stamp | None:
    """Returns the stamp of a file or folder as it is now, None if it cannot be looked at."""
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            return stamp_of_file(status)
        return stamp_of_images(images_of(path))
    except OSError:
        return None


def contents_of(path: Path) -> str | None:
    """Returns a hash of all bytes of a file or of a folder's images, None if it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        files = [path / name for name in sorted(images_of(path))] if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as content:
                while part := content.read(1 << 20):
                    digest.update(part)
            digest.update(b"/" + str(file.stat().st_size).encode())  # where the next one begins
    except OSError:
        return None
    return digest.hexdigest()


def images_of(folder: Path) -> dict[str, os.stat_result]:
    """Returns the status of what :func:`is_of_frames` directly in a folder, by name.

    Raises:
        OSError: the folder or a file cannot be looked at.
    """
    with os.scandir(folder) as entries:
        return {
            entry.name: entry.stat()
            for entry in entries
            if is_of_frames(entry.name) and not entry.name.startswith(".") and entry.is_file()
        }


def is_of_frames(name: str) -> bool:
    """Returns whether a file of this name may be a frame of a folder, or the table of times."""
    return is_image(name) or name == TIMES
