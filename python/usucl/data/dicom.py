"""One frame of a DICOM file, for callers that want no video."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from usucl.data.video import VideoError, open_video
from usucl.data.video.dicom import is_dicom


def dicom_frame(path: Path, index: int | None = None) -> tuple[Tensor, int]:
    """Returns frame ``index`` (the middle one for None) as uint8 [3, H, W] RGB, and its number.

    It is ``open_video(path)[index]``, but for files of other kinds, which are refused, and for
    numbers that count from the end.

    Raises:
        VideoError: the file is not DICOM, or see :func:`usucl.data.open_video`.
        IndexError: the file has no such frame.
    """
    if not is_dicom(path):
        raise VideoError(path, "not a DICOM file")
    video = open_video(path)
    number = len(video) // 2 if index is None else index
    if not 0 <= number < len(video):
        raise IndexError(f"{path} has {len(video)} frames, got @{number}")
    return video[number], number
