"""Opening videos of every kind by their path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from usucl.data.video.base import Damaged, Video, VideoError
from usucl.data.video.container import CONTAINER_SUFFIXES
from usucl.data.video.file import VideoFile
from usucl.data.video.folder import FrameFolder
from usucl.data.video.image import IMAGE_SUFFIXES
from usucl.data.video.stack import ImageStack
from usucl.data.video.stored import SUFFIX, StoredVideo, is_stored

_KINDS: dict[str, type[Video]] = {
    kind.__name__: kind for kind in (FrameFolder, ImageStack, StoredVideo, VideoFile)
}


def restore_video(path: Path, facts: Mapping[str, Any]) -> Video:
    """Returns a video without reading it, from the facts that :func:`video_facts` returned.

    Raises:
        KeyError: they are not such facts.
    """
    return _KINDS[facts["kind"]].restored(path, facts)


def video_facts(video: Video) -> dict[str, Any]:
    """Returns what opening the video found out, as JSON."""
    return {"kind": type(video).__name__, **video.facts()}


def is_video_file(path: Path) -> bool:
    """Returns whether ``open_video`` reads a file as a video, by its suffix."""
    return path.suffix.lower() in CONTAINER_SUFFIXES or is_stored(path)


def open_video(path: str | Path, *, damaged: Damaged = "skip") -> Video:
    """Opens a folder of frames (jpg, png, bmp, tif, webp) or a file (mp4, avi, mov, mpeg, gif).

    An image file that holds several pictures (tif, webp, png) is a video too. All of it is decoded
    once. Frames are upright and over black where they are transparent.

    Args:
        path: the folder or file.
        damaged: what becomes of a video of which something is missing or broken: "skip" refuses
            it, "keep" takes the frames that can be decoded and says in ``Video.damage`` what is
            missing.

    Raises:
        VideoError: the video is missing, empty, broken, too large (see ``usucl.data.video.limits``)
            or of an unknown kind.
        ValueError: ``damaged`` is neither "skip" nor "keep".
    """
    if damaged not in get_args(Damaged):
        raise ValueError(f"damaged must be one of {get_args(Damaged)}, got {damaged!r}")
    path = Path(path)
    if path.is_dir():
        return FrameFolder(path, damaged)
    if not path.is_file():
        raise VideoError(path, "no such file or folder")
    if path.suffix.lower() == SUFFIX:
        return StoredVideo(path, damaged)
    if is_video_file(path):
        return VideoFile(path, damaged)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageStack(path, damaged)
    raise VideoError(path, f"not a known video format ({path.suffix or 'no suffix'})")
