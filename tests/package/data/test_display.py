"""Frames are shown as their files mean them: upright, over black, with square pixels."""

from __future__ import annotations

import struct
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps
from tiny_videos import moving, write

from usucl.data import open_video

CORNERS = np.zeros((16, 32, 3), np.uint8)
CORNERS[:8, :16], CORNERS[:8, 16:], CORNERS[8:, :16] = 250, 170, 90


def first(path: Path) -> np.ndarray:
    return open_video(path).frames([0])[0].permute(1, 2, 0).numpy()


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Writes the display matrix (a, b, c, d) into the track's header."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    a, b, c, d = (65536 * v for v in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "matrix",
    [(x, 0, 0, y) for x, y in product((1, -1), repeat=2)]
    + [(0, x, y, 0) for x, y in product((1, -1), repeat=2)],
)
def test_the_display_matrix_of_a_video_is_obeyed(
    tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    """A pixel (x, y) moves to (a x + c y, b x + d y), which is then shifted into the picture."""
    path = turned(write(tmp_path / "a.mp4", [CORNERS] * 3, "libx264"), matrix)
    a, b, c, d = matrix
    height, width = (32, 16) if b else (16, 32)
    expected = np.zeros((height, width, 3))
    for y, x in product(range(16), range(32)):
        expected[(b * x + d * y) % height, (a * x + c * y) % width] = CORNERS[y, x]
    shown = first(path)
    if -1 in matrix:  # % puts the last pixel of a reversed side first
        expected = np.roll(expected, [-(-1 in (b, d)), -(-1 in (a, c))], (0, 1))
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).mean() < 8
    assert (open_video(path).height, open_video(path).width) == (height, width)


@pytest.mark.parametrize(("orientation", "suffix"), [*product(range(1, 9), ("jpg", "png", "tif"))])
def test_exif_orientation_is_obeyed(tmp_path: Path, orientation: int, suffix: str) -> None:
    for i in range(2):
        image = Image.fromarray(CORNERS)
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(tmp_path / f"{i}.{suffix}", exif=exif)
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.get(orientation)
    video = open_video(tmp_path)
    shown = first(tmp_path)
    assert shown.shape == ((32, 16, 3) if orientation >= 5 else (16, 32, 3))
    assert (video.height, video.width) == shown.shape[:2]
    if undo:
        back = Image.fromarray(shown)
        back.getexif()[0x0112] = undo
        shown = np.asarray(ImageOps.exif_transpose(back))
    assert np.abs(shown.astype(int) - CORNERS).mean() < 3


def clear(frames: int = 3) -> list[np.ndarray]:
    """uint8 [16, 32, 4]: white everywhere, but transparent outside the left half."""
    picture = np.full((16, 32, 4), 255, np.uint8)
    picture[:, 16:, 3] = 0
    return [picture] * frames


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mkv", "ffv1", "bgra"),
        ("a.mov", "qtrle", "argb"),
        ("a.mov", "png", "rgba"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
    ],
)
def test_transparent_videos_lie_over_black(
    tmp_path: Path, name: str, codec: str, pixels: str
) -> None:
    shown = first(write(tmp_path / name, clear(), codec, pixels))
    assert shown[:, :14].min() > 240 and shown[:, 18:].max() < 12


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_transparent_images_lie_over_black(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(clear()[0]).convert("RGBA" if mode == "P" else mode)
    options = {}
    if mode in ("P", "L"):
        image = Image.fromarray(clear()[0][..., 3]).point(lambda v: 255 - v)
        options["transparency"] = 255
    if mode == "P":
        image = image.convert("P")
    for i in range(2):
        image.save(tmp_path / f"{i}.png", **options)
    shown = first(tmp_path)
    assert shown[:, 16:].max() == 0
    assert shown[:, :16].min() == (0 if mode in ("P", "L") else 255)


def test_transparent_gif_lies_over_black(tmp_path: Path) -> None:
    images = [Image.fromarray(np.roll(clear()[0], i, 1)) for i in range(3)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], disposal=2)
    shown = first(tmp_path / "a.gif")
    assert shown[:, :16].min() == 255 and shown[:, 16:].max() == 0


def test_pixels_become_square(tmp_path: Path) -> None:
    video = open_video(write(tmp_path / "a.mp4", moving(3), aspect=Fraction(3, 2)))
    assert (video.height, video.width) == (48, 96)
    assert video.frames([0]).shape == (1, 3, 48, 96)


def test_a_still_in_front_of_the_video_is_not_the_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        streams = [file.add_stream("mjpeg", rate=25), file.add_stream("libx264", rate=25)]
        for stream, pixels in zip(streams, ("yuvj420p", "yuv420p"), strict=True):
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for i, picture in enumerate(moving(12)):
            for stream in streams if i == 0 else streams[1:]:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                file.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        for stream in streams:
            file.mux(stream.encode(None))
    assert len(open_video(path)) == 12
