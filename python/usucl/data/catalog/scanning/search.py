"""The search for videos in a folder, with the reasons why other files are not videos."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from os.path import splitext
from pathlib import Path
from typing import Any, NamedTuple

from usucl.data.catalog.scanning.manifest import Manifest
from usucl.data.catalog.scanning.stamp import Stamp, is_of_frames, stamp_of_file, stamp_of_images
from usucl.data.video import VIDEO_SUFFIXES, is_image, is_stack, is_video_file, natural_key
from usucl.data.video.content import PACKED, is_packed
from usucl.data.video.dicom import DIRECTORY

# Files that often lie next to videos and are not meant to be one.
TEXT_SUFFIXES = frozenset(
    {".csv", ".htm", ".html", ".json", ".md", ".pdf", ".tsv", ".txt", ".xml", ".yaml", ".yml"}
)
# What desktops leave in folders, beside what is hidden.
_OF_DESKTOPS = frozenset({"__macosx", "desktop.ini", "ehthumbs.db", "thumbs.db"})
_SPREADSHEETS = frozenset({".numbers", ".ods", ".xls", ".xlsm", ".xlsx"})
_DOCUMENTS = frozenset({".doc", ".docx", ".odt", ".ppt", ".pptx"})  # zipped, as it happens
_KIND = "kind"  # conditions of the manifest's lines about what a file is


class Skipped(NamedTuple):
    """A file or folder that cannot be used, and why."""

    path: Path
    reason: str

    def as_utf8(self, root: Path) -> Skipped:
        r"""Returns the item with bytes under ``root`` that are not UTF-8 written as ``\xNN``.

        Unescaped, they could be neither printed nor written to a file.
        """
        return Skipped(root / _utf8(str(self.path.relative_to(root))), _utf8(self.reason))


class Candidate(NamedTuple):
    """What may be a video.

    Attributes:
        path: the file, or the folder of images.
        name: path relative to the root, with slashes.
        stamp: of what lies there, None if that cannot be told.
        files: what it has in common with all links to it.
        is_folder: whether it is a folder of images.
    """

    path: Path
    name: str
    stamp: Stamp | None
    files: Hashable
    is_folder: bool = False


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        videos: what may be videos, in natural order.
        skipped: what cannot be one.
        others: counts of the suffixes of text files.
    """

    videos: list[Candidate] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def find_videos(root: Path, manifest: Manifest) -> Found:
    """Returns what lies under ``root``; files that the manifest knows are not read."""
    found = Found()
    visited: dict[str, Candidate | None] = {}
    todo = [(root, "", os.path.realpath(root))]
    while todo:
        here, name, real = todo.pop()
        if real in visited:
            if (video := visited[real]) is not None:  # another name of it
                found.videos.append(video._replace(path=here, name=name or "."))
            continue
        visited[real] = None
        try:
            folder = _Folder(here, name)
        except OSError as error:
            found.skipped.append(Skipped(here, f"the folder cannot be read ({error.strerror})"))
            continue
        visited[real] = folder.sort(found, manifest)
        if not folder.files and not folder.subfolders and here != root:
            found.skipped.append(Skipped(here, "the folder is empty"))
        # Links come last, so that a folder next to them is found under its own name.
        for is_link, _, below in sorted(folder.subfolders, reverse=True):
            path = here / below
            target = os.path.realpath(path) if is_link else os.path.join(real, below)
            todo.append((path, folder.name_of(below), target))
    unusable = {item.path for item in found.skipped}
    usable = []
    for video in found.videos:
        if _utf8(video.name) != video.name:
            reason = "the name is not valid UTF-8: rename it"
            found.skipped.append(Skipped(video.path, reason))
        elif video.path not in unusable:
            usable.append(video)
    found.videos = sorted(usable, key=lambda video: natural_key(video.name))
    return found


class _Folder:
    """The visible files of one folder, by name, with their status, and its subfolders."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.files: dict[str, os.stat_result | None] = {}
        self.subfolders: list[tuple[bool, Any, str]] = []
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in _OF_DESKTOPS:
                    continue
                if _is_folder(entry):
                    key = natural_key(entry.name)
                    self.subfolders.append((entry.is_symlink(), key, entry.name))
                else:
                    self.files[entry.name] = _status(entry)

    def name_of(self, name: str) -> str:
        """Returns the path of a file relative to the root."""
        return f"{self.name}/{name}" if self.name else name

    def sort(self, found: Found, manifest: Manifest) -> Candidate | None:
        """Adds what lies here to ``found``; returns the video that the folder itself is, if any."""
        frames = {
            name: status
            for name, status in self.files.items()
            if status is not None and stat.S_ISREG(status.st_mode) and is_of_frames(name)
        }
        stamp = stamp_of_images(frames)
        images = {name: status for name, status in frames.items() if is_image(name)}
        stacks = self._stacks(images, stamp, manifest) if images else set()
        kinds = {
            name: self._kind(name, status, manifest)
            for name, status in sorted(self.files.items())
            if name not in images
        }
        videos = [*sorted(stacks), *(name for name, kind in kinds.items() if kind == "video")]
        for name in videos:
            found.videos.append(self._candidate(name))
        for name, kind in kinds.items():
            if kind == "text":
                found.others[splitext(name)[1] or name] += 1
            elif kind != "video":
                found.skipped.append(Skipped(self.path / name, _REASONS[kind]))
        stills = [name for name in images if name not in stacks]
        if not stills:
            return None
        pictured = {splitext(name)[0] for name in videos}
        pictured.update(name for _, _, name in self.subfolders)
        if reason := _no_frames(stills, bool(videos), pictured):
            found.skipped += [Skipped(self.path / name, reason) for name in stills]
            return None
        files = hash(frozenset((images[name].st_dev, images[name].st_ino) for name in stills))
        found.videos.append(video := Candidate(self.path, self.name or ".", stamp, files, True))
        return video

    def _candidate(self, name: str) -> Candidate:
        path, status = self.path / name, self.files[name]
        if status is None:
            return Candidate(path, self.name_of(name), None, path)
        files = status.st_dev, status.st_ino
        return Candidate(path, self.name_of(name), stamp_of_file(status), files)

    def _stacks(
        self, images: Mapping[str, os.stat_result], stamp: Stamp, manifest: Manifest
    ) -> set[str]:
        """Returns the images that hold several pictures."""
        name = self.name or "."
        if (known := manifest.get(name, stamp, _KIND)) is not None:
            return images.keys() & set(known["stacks"])
        contents = manifest.contents(name, stamp)
        stacks = set()
        for image, status in images.items():
            relative, its = self.name_of(image), stamp_of_file(status)
            if manifest.get(relative, its, _KIND) is not None:
                stacks.add(image)
            elif is_stack(self.path / image):
                stacks.add(image)
                manifest.put(relative, its, _KIND, {}, manifest.contents(relative, its))
        manifest.put(name, stamp, _KIND, {"stacks": sorted(stacks)}, contents)
        return stacks

    def _kind(self, name: str, status: os.stat_result | None, manifest: Manifest) -> str:
        """Returns "video", "text" or why a file is neither, as a key of ``_REASONS``."""
        path, suffix = self.path / name, splitext(name)[1].lower()
        if status is not None and not stat.S_ISREG(status.st_mode):
            return "special"  # to open it may take forever
        if suffix in TEXT_SUFFIXES or name.upper() == DIRECTORY:
            return "text"
        if suffix in VIDEO_SUFFIXES:
            return "video"
        if suffix in _SPREADSHEETS:
            return "spreadsheet"
        relative, stamp = self.name_of(name), None if status is None else stamp_of_file(status)
        if (known := manifest.get(relative, stamp, _KIND)) is not None:
            return str(known["kind"])
        if not os.access(path, os.R_OK):
            return "other" if status is None else "closed"
        contents = manifest.contents(relative, stamp)
        kind = "video" if is_video_file(path) else "other"
        if kind == "other" and suffix not in _DOCUMENTS and is_packed(path):
            kind = "packed"
        manifest.put(relative, stamp, _KIND, {"kind": kind}, contents)
        return kind


_REASONS = {
    "closed": "cannot be read (permission denied)",
    "other": "no video or image format that is read",
    "packed": PACKED,
    "special": "not a file that can be read",
    "spreadsheet": "a spreadsheet, which is not read: save its table as .csv",
}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Returns the status of a file, through links; None if there is none."""
    try:
        return entry.stat()
    except OSError:
        return None


def _no_frames(stills: list[str], beside_videos: bool, pictured: set[str]) -> str | None:
    """Returns why the still images of a folder are not the frames of one video, None if they are.

    Args:
        stills: the names of the images.
        beside_videos: whether the folder holds videos too.
        pictured: names of the videos and folders beside them, without suffixes.
    """
    names = [splitext(file)[0] for file in stills]
    if pictured.intersection(names):
        return "an image named like a video beside it is its cover, and the others are alike"
    if beside_videos:
        numbers = sorted(int(name) for name in names if name.isascii() and name.isdecimal())
        frames = list(range(len(names)))
        if numbers not in (frames, [n + 1 for n in frames]):
            return "a still image beside videos: give the frames of a video a folder of their own"
    if len({_NO_LETTERS.sub("", name).lower() for name in names}) > 1:
        return (
            "a still image, and those beside it are not one numbered sequence: "
            "give the frames of a video a folder of their own"
        )
    return None


_NO_LETTERS = re.compile(r"[\W\d_]+")


def _utf8(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
