"""Videos are refused by what their headers announce, before they are decoded."""

from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_videos import moving, write

from usucl.data import VideoError, open_video
from usucl.data.transforms import resize_short_side
from usucl.data.video import read_image
from usucl.data.video.limits import DEFAULTS, check_cost


def gif(path: Path, side: int, frames: int) -> Path:
    """Writes a GIF with a canvas of side x side, whose frames have a pixel each."""
    frame = b"\x21\xf9\x04\x04\x05\0\0\0\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    frame += b"\x02\x02\x44\x01\x00"
    header = b"GIF89a" + struct.pack("<HHBBB", side, side, 0xF0, 0, 0) + b"\0\0\0\xff\xff\xff"
    path.write_bytes(header + frame * frames + b";")
    return path


def png(path: Path, width: int, height: int) -> Path:
    """Writes the header of a grey PNG and a few bytes of its data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        length, check = len(data), zlib.crc32(kind + data)
        return struct.pack(">I", length) + kind + data + struct.pack(">I", check)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(
    ("side", "frames", "limit"),
    [
        (8000, 300, "USUCL_MAX_FRAME_PIXELS"),
        (4000, 3000, "USUCL_MAX_VIDEO_PIXELS"),
        (2, 140000, "USUCL_MAX_FRAMES"),
    ],
)
def test_gif_bombs_are_refused_at_once(tmp_path: Path, side: int, frames: int, limit: str) -> None:
    start = time.process_time()
    with pytest.raises(VideoError, match=f"too large: .*; set {limit} to raise this"):
        open_video(gif(tmp_path / "a.gif", side, frames))
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("width", "height", "limit"),
    [(13000, 13000, "USUCL_MAX_FRAME_PIXELS"), (1, 60000, "USUCL_MAX_ASPECT")],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_are_refused_by_their_header(
    tmp_path: Path, width: int, height: int, limit: str
) -> None:
    path = png(tmp_path / "0.png", width, height)
    for read in (lambda: read_image(path), lambda: open_video(tmp_path)):
        with pytest.raises(VideoError, match=f"at most .* set {limit} to raise this"):
            read()


def test_stacks_and_webp_are_refused_by_their_header(tmp_path: Path) -> None:
    canvas = (16382).to_bytes(3, "little") * 2
    chunk = b"WEBPVP8X" + struct.pack("<IB3x", 10, 2) + canvas
    (tmp_path / "a.webp").write_bytes(b"RIFF" + struct.pack("<I", len(chunk)) + chunk)
    with pytest.raises(VideoError, match="USUCL_MAX_FRAME_PIXELS"):
        open_video(tmp_path / "a.webp")
    image = Image.new("L", (8, 8))
    image.save(tmp_path / "a.tif", save_all=True, append_images=[image] * 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USUCL_MAX_FRAMES", "3")
        with pytest.raises(VideoError, match="4 frames, at most 3 are read"):
            open_video(tmp_path / "a.tif")


def test_limits_are_raised_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mp4", moving(5))
    monkeypatch.setenv("USUCL_MAX_FRAME_PIXELS", "1000")
    with pytest.raises(VideoError, match="3072 pixels per frame, at most 1000 are read"):
        open_video(path)
    monkeypatch.setenv("USUCL_MAX_FRAME_PIXELS", "3072")
    assert len(open_video(path)) == 5
    monkeypatch.setenv("USUCL_MAX_FRAME_PIXELS", "many")
    with pytest.raises(ValueError, match="USUCL_MAX_FRAME_PIXELS must be a positive whole number"):
        open_video(path)


def test_every_limit_names_its_variable() -> None:
    costs = {
        "USUCL_MAX_FRAME_PIXELS": (10**5, 10**5, 1),
        "USUCL_MAX_VIDEO_PIXELS": (1000, 1000, 10**5),
        "USUCL_MAX_FRAMES": (1, 1, 10**6),
        "USUCL_MAX_ASPECT": (17, 1, 1),
    }
    inflated = "USUCL_MAX_INFLATED_BYTES"  # of a file, not of a video: see test_dicom.py
    assert costs.keys() == DEFAULTS.keys() - {inflated}
    for name, cost in costs.items():
        with pytest.raises(VideoError, match=f"set {name} to raise this"):
            check_cost(Path("a"), *cost)
    check_cost(Path("a"), 7680, 4320, 1000)


def test_thin_images_are_not_enlarged() -> None:
    with pytest.raises(ValueError, match="images must be at most 16 times as long as wide"):
        resize_short_side(torch.zeros(3, 1, 60000, dtype=torch.uint8), 224)
    assert resize_short_side(torch.zeros(3, 2, 32, dtype=torch.uint8), 4).shape == (3, 4, 64)
