"""The search for videos in a folder, with the reasons why other files are not videos."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from usucl.data.video import frame_files, is_stack, is_video_file, natural_key
from usucl.data.video.dicom import DIRECTORY

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
    visited: dict[str, Path] = {}
    for folder, subfolders, names in os.walk(root, followlinks=True):
        here = Path(folder)
        if (real := os.path.realpath(here)) in visited:
            subfolders.clear()
            paths += [here] if visited[real] in paths else []  # another name of the video
            continue
        visited[real] = here
        subfolders[:] = [s for s in subfolders if not s.startswith(".")]
        # Links come last, so that a folder next to them is found under its own name.
        subfolders.sort(key=lambda s: ((here / s).is_symlink(), natural_key(s)))
        files = [here / name for name in names if not name.startswith(".")]
        images = frame_files(here)
        stacks = {file for file in images if is_stack(file)}
        stills = [file for file in images if file not in stacks]
        videos = [
            file for file in files if file in stacks or (not _is_text(file) and is_video_file(file))
        ]
        paths += videos
        pictured = {file.stem for file in videos}
        if reason := _no_frames(stills, bool(videos), pictured.union(subfolders)):
            skipped += [Skipped(file, reason) for file in stills]
        elif stills:
            paths.append(here)
        for file in sorted(set(files).difference(videos, stills)):
            if _is_text(file):
                others[file.suffix or file.name] += 1
            else:
                skipped.append(Skipped(file, "no video or image format that is read"))
        if not files and not subfolders and here != root:
            skipped.append(Skipped(here, "the folder is empty"))
    for path in paths:
        if _utf8(name := str(path.relative_to(root))) != name:
            skipped.append(Skipped(path, "the name is not valid UTF-8: rename it"))
    unusable = {item.path for item in skipped}
    usable = (path for path in paths if path not in unusable)
    return sorted(usable, key=lambda path: natural_key(str(path))), skipped, others


def _no_frames(stills: list[Path], beside_videos: bool, pictured: set[str]) -> str | None:
    """Returns why the still images of a folder are not the frames of one video, None if they are.

    Args:
        stills: the images, in natural order.
        beside_videos: whether the folder holds videos too.
        pictured: names of the videos and folders beside them, without suffixes.
    """
    names = [file.stem for file in stills]
    if pictured.intersection(names):
        return "an image named like a video beside it is its cover, and the others are alike"
    numbers = [int(name) for name in names if name.isascii() and name.isdecimal()]
    frames = list(range(len(names)))
    if beside_videos and numbers not in (frames, [n + 1 for n in frames]):
        return "a still image beside videos: give the frames of a video a folder of their own"
    if len({re.sub(r"[\W\d_]+", "", name).lower() for name in names}) > 1:
        return (
            "a still image, and those beside it are not one numbered sequence: "
            "give the frames of a video a folder of their own"
        )
    return None


def _is_text(file: Path) -> bool:
    return file.suffix.lower() in TEXT_SUFFIXES or file.name.upper() == DIRECTORY


def _utf8(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
