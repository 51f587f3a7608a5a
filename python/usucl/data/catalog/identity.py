"""When two names, or two paths, mean the same: a file has one identity, however it is reached."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from os.path import splitext
from pathlib import Path

from usucl.data.video import IMAGE_SUFFIXES, frame_files


def same_name(name: str) -> str:
    """Returns one spelling (NFC) for all that look alike: macOS writes é as e and an accent."""
    return unicodedata.normalize("NFC", name)


def by_identity(paths: Sequence[Path]) -> dict[Path, list[Path]]:
    """Returns each video once, in the order of ``paths``, with the other paths that lead to it.

    Paths lead to the same video if they are links, symbolic or hard, to the same file, or folders
    whose frames are the same files. A name that is no symbolic link stands for the others.
    """
    alike: dict[Hashable, list[Path]] = {}
    for path in paths:
        alike.setdefault(_listed(path), []).append(path)
    same: dict[Hashable, list[Path]] = {}
    for group in alike.values():
        for path in group:
            # Some file systems list every file under one number, so only asking for it is sure.
            same.setdefault(_identity(path) if len(group) > 1 else path, []).append(path)
    found: dict[Path, list[Path]] = {}
    for group in same.values():
        first = min(group, key=Path.is_symlink) if len(group) > 1 else group[0]
        found[first] = [path for path in group if path != first]
    return {path: found[path] for path in paths if path in found}


def known_as(paths: Iterable[Path], names: Collection[str]) -> set[str]:
    """Returns those of ``names`` that mean a video: the longest end of each path to it."""
    found = (next((n for n in _possible_ids(path) if n in names), None) for path in paths)
    return {name for name in found if name is not None}


def _possible_ids(path: Path) -> Iterator[str]:
    """Yields every id that a catalogue may have given the video, the most specific first."""
    paths = [path.absolute(), path.resolve()]  # the name of a link, and of its target
    if path.is_file():
        paths += [p.with_suffix("") for p in paths]
    for length in range(max(len(p.parts) for p in paths), 0, -1):
        for p in paths:
            yield same_name("/".join(p.parts[-length:]))


def _listed(path: Path) -> Hashable:
    """Returns what ``path`` has in common with all its links, at the cost of listing a folder."""
    try:
        here = path.stat()
        if not stat.S_ISDIR(here.st_mode):
            return here.st_dev, here.st_ino
        with os.scandir(path) as entries:
            images = [e for e in entries if splitext(e.name)[1].lower() in IMAGE_SUFFIXES]
            return frozenset(e.stat().st_ino if e.is_symlink() else e.inode() for e in images)
    except OSError:
        return path  # opening it tells what is wrong


def _identity(path: Path) -> Hashable:
    """Returns device and inode of a file, or those of all frames of a folder."""
    try:
        files = frame_files(path) if path.is_dir() else [path]
        found = [(status.st_dev, status.st_ino) for status in map(Path.stat, files)]
    except OSError:
        return path
    return tuple(found) if all(inode for _, inode in found) else path
