"""The search for videos in a folder, with the reasons why other files are not videos."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from usucl.data.dicom_files import DICOM_SUFFIXES, DIRECTORY, is_dicom
from usucl.data.video import frame_files, is_video_file, natural_key

# Files that often lie next to videos and are not meant to be one.
TEXT_SUFFIXES = frozenset(
    {".csv", ".htm", ".html", ".json", ".md", ".pdf", ".tsv", ".txt", ".xml", ".yaml", ".yml"}
)


class Skipped(NamedTuple):
    """A file or folder that cannot be used, and why."""

    path: Path
    reason: str

    def as_utf8(self, root: Path) -> Skipped:
        r"""Returns the item with bytes under ``root`` that are not UTF-8 written as ``\xNN``.

        Unescaped, they could be neither printed nor written to a file.
        """
        return Skipped(root / _utf8(str(self.path.relative_to(root))), _utf8(self.reason))


def find_videos(root: Path) -> tuple[list[Path], list[Skipped], Counter[str]]:
    """Returns (videos in natural order, skipped files, counts of the suffixes of text files)."""
    paths: list[Path] = []
    skipped: list[Skipped] = []
    others: Counter[str] = Counter()
    visited: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        here = Path(folder)
        if (real := os.path.realpath(here)) in visited:
            subfolders.clear()
            paths += [here] if frame_files(here) else []  # another name of the same video
            continue
        visited.add(real)
        subfolders[:] = [s for s in subfolders if not s.startswith(".")]
        # Links come last, so that a folder next to them is found under its own name.
        subfolders.sort(key=lambda s: ((here / s).is_symlink(), natural_key(s)))
        files = [here / name for name in names if not name.startswith(".")]
        images = set(frame_files(here))
        if images:
            paths.append(here)
        for file in files:
            if is_video_file(file):
                paths.append(file)
            elif file.suffix.lower() in TEXT_SUFFIXES or file.name.upper() == DIRECTORY:
                others[file.suffix or file.name] += 1
            elif file not in images:
                skipped.append(Skipped(file, _unknown_kind(file)))
        if not files and not subfolders and here != root:
            skipped.append(Skipped(here, "the folder is empty"))
    for path in paths:
        if _utf8(name := str(path.relative_to(root))) != name:
            skipped.append(Skipped(path, "the name is not valid UTF-8: rename it"))
    unusable = {item.path for item in skipped}
    videos = (path for path in paths if path not in unusable)
    return sorted(videos, key=lambda path: natural_key(str(path))), skipped, others


def _unknown_kind(file: Path) -> str:
    if file.suffix.lower() in DICOM_SUFFIXES or is_dicom(file):
        return "DICOM is not read yet: convert it to a video or to frames"
    return "no video or image format that is read"


def _utf8(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
