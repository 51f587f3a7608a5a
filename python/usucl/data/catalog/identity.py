"""When two names, or two paths, mean the same: a file has one identity, however it is reached."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import TypeVar

from usucl.data.video import frame_files

APath = TypeVar("APath", bound=PurePath)


def without_suffix(file: APath) -> APath:
    """Returns a file's path without its suffix; one without a letter is part of the name.

    Archives of DICOM name files by numbers, such as ``1.2.840.113619.2`` or ``IMG.001``.
    """
    return file.with_suffix("") if any(map(str.isalpha, file.suffix)) else file


def same_name(name: str) -> str:
    """Returns one spelling (NFC) for all that look alike: macOS writes é as e and an accent."""
    return unicodedata.normalize("NFC", name)


def relative_name(root: Path, path: Path) -> str:
    """Returns the path of a video in its folder, with slashes, in one spelling."""
    return same_name(path.relative_to(root).as_posix())


def by_identity(paths: Mapping[Path, Hashable]) -> dict[Path, list[Path]]:
    """Returns each video once, in the order of ``paths``, with the other paths that lead to it.

    Paths lead to the same video if they are links, symbolic or hard, to the same file, or folders
    whose frames are the same files. A name that is no symbolic link stands for the others.

    Args:
        paths: what each path has in common with all links to the same video.
    """
    alike: dict[Hashable, list[Path]] = {}
    for path, files in paths.items():
        alike.setdefault(files, []).append(path)
    if len(alike) == len(paths):
        return {path: [] for path in paths}
    same: dict[Hashable, list[Path]] = {}
    for group in alike.values():
        for path in group:
            # The frames of two folders may be the same files in another order.
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
        paths += [without_suffix(p) for p in paths]
    for length in range(max(len(p.parts) for p in paths), 0, -1):
        for p in paths:
            yield same_name("/".join(p.parts[-length:]))


def _identity(path: Path) -> Hashable:
    """Returns device and inode of a file, or those of all frames of a folder."""
    try:
        files = frame_files(path) if path.is_dir() else [path]
        found = [(status.st_dev, status.st_ino) for status in map(Path.stat, files)]
    except OSError:
        return path
    return tuple(found) if all(inode for _, inode in found) else path
