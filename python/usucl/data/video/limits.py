"""What a video may cost, checked against its header before anything is decoded.

A file of a few bytes can announce pictures of gigabytes. Each limit can be raised by an environment
variable of its name, such as ``USUCL_MAX_FRAME_PIXELS=100000000``.
"""

from __future__ import annotations

import os
from pathlib import Path

from usucl.data.video.base import VideoError

DEFAULTS = {
    "USUCL_MAX_FRAME_PIXELS": 2**25,  # one frame of 8K video, 100 MB as RGB
    "USUCL_MAX_VIDEO_PIXELS": 2**35,  # all frames: 11 minutes of 1920x1080 at 25 Hz
    "USUCL_MAX_FRAMES": 2**17,  # 73 minutes at 30 Hz
    "USUCL_MAX_ASPECT": 16,  # long side over short side; scaling the short side scales both
    "USUCL_MAX_INFLATED_BYTES": 2**29,  # of a deflated DICOM file
}


def limit(name: str) -> int:
    """Returns a limit: its environment variable, or the value of ``DEFAULTS``.

    Raises:
        ValueError: the variable is not a positive whole number.
    """
    text = os.environ.get(name, "")
    if not text:
        return DEFAULTS[name]
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise ValueError(f"{name} must be a positive whole number, got {text!r}")
    return int(text)


def check_cost(path: Path, width: int, height: int, frames: int = 1) -> None:
    """Refuses a video whose frames are too large, too thin or too many.

    Raises:
        VideoError: a limit is exceeded; names it.
    """
    long, short = max(width, height), min(width, height)
    if short < 1:
        raise VideoError(path, f"frames of {width}x{height} pixels are empty")
    for name, cost, what in (
        ("USUCL_MAX_FRAME_PIXELS", width * height, "pixels per frame"),
        ("USUCL_MAX_ASPECT", -(-long // short), "times as long as wide"),
        ("USUCL_MAX_FRAMES", frames, "frames"),
        ("USUCL_MAX_VIDEO_PIXELS", frames * width * height, "pixels in all frames"),
    ):
        if cost > (most := limit(name)):
            raise VideoError(
                path,
                f"too large: {frames} x {width}x{height} pixels are {cost} {what}, "
                f"at most {most} are read; set {name} to raise this",
            )
