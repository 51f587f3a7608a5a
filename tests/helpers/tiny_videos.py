"""Small video files with a picture that moves, written by FFmpeg."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def moving(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """uint8 [H, W, 3]: a smooth random texture that moves by a pixel per frame."""
    coarse = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    size = (width + count, height + count)
    texture = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    crops = (texture[i : i + height, i : i + width] for i in range(count))
    return [np.repeat(crop[..., None], 3, axis=2) for crop in crops]


def write(
    path: Path,
    frames: list[np.ndarray],
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    *,
    times: list[int] | None = None,
    aspect: Fraction | None = None,
    container: str | None = None,
    options: dict[str, str] | None = None,
    group: int | None = None,
) -> Path:
    """Writes a file at 25 Hz, or with frames at ``times`` in ms, a key frame per ``group``."""
    layout = "rgba" if frames[0].shape[-1] == 4 else "rgb24"
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if group:
            stream.codec_context.gop_size = group
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format=layout).reformat(format=pixels)
            if times:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path
