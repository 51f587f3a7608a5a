"""Opening videos of every kind by their path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from usucl.data.video.base import Damaged, Video, VideoError
from usucl.data.video.content import PACKED, Kind, kind_of
from usucl.data.video.dicom import DICOM_SUFFIXES, DIRECTORY
from usucl.data.video.ffmpeg.container import CONTAINER_SUFFIXES
from usucl.data.video.ffmpeg.video import VideoFile
from usucl.data.video.images.folder import FrameFolder
from usucl.data.video.images.image import IMAGE_SUFFIXES
from usucl.data.video.images.stack import ImageStack
from usucl.data.video.stored import SUFFIX, PixelFile, is_stored

_BY_CONTENT: dict[Kind, str] = {
    "container": "VideoFile",
    "dicom": "DicomVideo",
    "image": "ImageStack",
}
VIDEO_SUFFIXES = CONTAINER_SUFFIXES | DICOM_SUFFIXES
_SEVERAL_JPEGS = (".mjpeg", ".mjpg")  # begin like a still


def restore_video(path: Path, facts: Mapping[str, Any]) -> Video:
    """Returns a video without reading it, from the facts that :func:`video_facts` returned.

    Raises:
        KeyError: they are not such facts.
    """
    return _class_of(facts["kind"]).restored(path, facts)


def _class_of(kind: str) -> type[Video]:
    """Returns the class of this name; pydicom takes half a second to import."""
    if kind == "DicomVideo":
        from usucl.data.video.dicom.video import DicomVideo

        return DicomVideo
    return {k.__name__: k for k in (FrameFolder, ImageStack, PixelFile, VideoFile)}[kind]


def video_facts(video: Video) -> dict[str, Any]:
    """Returns what opening the video found out, as JSON."""
    return {"kind": type(video).__name__, **video.facts()}


def is_video_file(path: Path) -> bool:
    """Returns whether ``open_video`` takes a file for a video or DICOM, without opening it.

    The suffix decides where it is known, and otherwise the first bytes of the file. Image files are
    not asked: whether they are stacks is up to ``is_stack``.
    """
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return True
    if suffix in IMAGE_SUFFIXES or path.name.upper() == DIRECTORY:
        return False
    if suffix == SUFFIX:
        return is_stored(path)
    try:
        return path.is_file() and kind_of(path) in ("container", "dicom")
    except OSError:
        return False


def _kind_by_suffix(path: Path) -> Kind | None:
    suffix = path.suffix.lower()
    if suffix in CONTAINER_SUFFIXES:
        return "container"
    if suffix in DICOM_SUFFIXES:
        return "dicom"
    return "image" if suffix in IMAGE_SUFFIXES else None


def open_video(path: str | Path, *, damaged: Damaged = "skip") -> Video:
    """Opens a folder of frames, a video file, a DICOM file, or an image file of several pictures.

    What a file is, its first bytes tell, whatever its name. All of it is decoded once. Frames are
    upright and over black where they are transparent.

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
        return PixelFile(path, damaged)
    kind = _kind_by_suffix(path)
    try:
        if not (kind == "container" and path.suffix.lower() in _SEVERAL_JPEGS):
            kind = kind_of(path) or kind
    except OSError as error:
        raise VideoError(path, f"cannot be read ({error.strerror or error})") from error
    if kind == "packed":
        raise VideoError(path, PACKED)
    if kind is None:
        raise VideoError(path, f"not a known video format ({path.suffix or 'no suffix'})")
    opened: Callable[[Path, Damaged], Video] = _class_of(_BY_CONTENT[kind])
    return opened(path, damaged)
