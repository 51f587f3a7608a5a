"""When two names, or two paths, mean the same: a file has one identity, however it is reached."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable
from pathlib import Path

from usucl.data.video import frame_files


def same_name(name: str) -> str:
    """Returns one spelling (NFC) for all that look alike: macOS writes é as e and an accent."""
    return unicodedata.normalize("NFC", name)


def by_identity(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    """Returns each video once, in the order of ``paths``, with the other paths that lead to it.

    Paths lead to the same video if they are links, symbolic or hard, to the same file, or folders
    whose frames are the same files. A name that is no symbolic link stands for the others.
    """
    same: dict[Hashable, list[Path]] = {}
    for path in paths:
        same.setdefault(_identity(path), []).append(path)
    return {(first := min(group, key=Path.is_symlink)): [p for p in group if p != first]
            for group in same.values()}  # fmt: skip


def _identity(path: Path) -> Hashable:
    """Returns device and inode of a file, or those of all frames of a folder."""
    try:
        files = frame_files(path) if path.is_dir() else [path]
        found = [(status.st_dev, status.st_ino) for status in map(Path.stat, files)]
    except OSError:
        return path  # opening it tells what is wrong
    return tuple(found) if all(inode for _, inode in found) else path
