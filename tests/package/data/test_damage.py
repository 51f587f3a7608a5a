"""Damaged and cut videos are told from whole ones, and left out or kept as one asks."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from PIL import Image
from tiny_videos import moving, write

from usucl.data import VideoError, open_video
from usucl.data.video import read_image

FRAMES = moving(40)
KINDS = [
    ("avi", "mjpeg", "yuvj420p"),
    ("avi", "mpeg4", "yuv420p"),
    ("gif", "gif", "gray"),
    ("mkv", "ffv1", "yuv420p"),
    ("mkv", "libx264", "yuv420p"),
    ("mov", "mpeg4", "yuv420p"),
    ("mp4", "libx264", "yuv420p"),
    ("mpg", "mpeg2video", "yuv420p"),
    ("webm", "libvpx-vp9", "yuv420p"),
    ("wmv", "wmv2", "yuv420p"),
]


@pytest.mark.parametrize(("suffix", "codec", "pixels"), KINDS)
def test_cut_and_overwritten_videos_are_refused(
    tmp_path: Path, suffix: str, codec: str, pixels: str
) -> None:
    whole = write(tmp_path / f"whole.{suffix}", FRAMES, codec, pixels)
    assert len(open_video(whole)) == 40
    content = whole.read_bytes()
    at, hole = int(len(content) * 0.45), len(content) // 20
    damaged = {
        "cut": content[: int(len(content) * 0.55)],
        "overwritten": content[:at] + bytes(hole) + content[at + hole :],
    }
    for how, rest in damaged.items():
        path = tmp_path / f"{how}.{suffix}"
        path.write_bytes(rest)
        with pytest.raises(VideoError, match=r"damaged: |cannot be decoded") as caught:
            open_video(path)
        assert caught.value.path == path


@pytest.mark.parametrize(
    ("name", "codec", "times"),
    [
        ("gaps.mkv", "libx264", True),
        ("gaps.mp4", "libx264", True),
        ("gaps.avi", "mpeg4", True),
        ("gaps.wmv", "wmv2", True),
        ("late.mkv", "libx264", False),
        ("late.wmv", "wmv2", False),
    ],
)
def test_gaps_between_frames_are_no_damage(
    tmp_path: Path, name: str, codec: str, times: bool
) -> None:
    uneven = [40 * i + 1000 * (i // 5) for i in range(20)]
    late = [5000 + 40 * i for i in range(20)]
    video = open_video(write(tmp_path / name, FRAMES[:20], codec, times=uneven if times else late))
    assert len(video) == 20 and video.damage is None


@pytest.mark.parametrize(
    ("name", "container"), [("a.avi", "mp4"), ("a.mp4", "matroska"), ("a.mpg", "mpegts")]
)
def test_the_contents_decide_among_containers(tmp_path: Path, name: str, container: str) -> None:
    path = write(tmp_path / name, FRAMES[:10], "mpeg2video", container=container)
    assert len(open_video(path)) == 10


def test_damaged_videos_are_kept_as_far_as_they_decode(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", FRAMES, "libx264")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    video = open_video(path, damaged="keep")
    assert 0 < len(video) < 40
    assert video.damage is not None and video.damage.startswith("damaged: ")
    assert len(video.frames(range(len(video)))) == len(video)
    with pytest.raises(ValueError, match="damaged must be one of"):
        open_video(path, damaged="drop")  # type: ignore[arg-type]


def test_damaged_images_are_dropped_from_a_kept_folder(tmp_path: Path) -> None:
    for i in range(4):
        Image.fromarray(FRAMES[i]).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:100])
    with pytest.raises(VideoError, match=r"2\.png: damaged: cut short"):
        open_video(tmp_path)
    video = open_video(tmp_path, damaged="keep")
    assert len(video) == 3
    assert video.damage is not None and video.damage.startswith("1 of 4 images are broken (2.png")


def test_damage_is_told_alike_on_any_number_of_cores(tmp_path: Path) -> None:
    """An error of the last packet is lost where FFmpeg decodes with more than two threads."""
    path = write(tmp_path / "a.mp4", FRAMES, "libx264")
    content = bytearray(path.read_bytes())
    moov = content.index(b"moov")
    content[moov - 104 : moov - 4] = bytes(100)  # the last frame's data
    path.write_bytes(content)
    cores = os.sched_getaffinity(0)
    said = set()
    for allowed in ({min(cores)}, cores):
        os.sched_setaffinity(0, allowed)
        try:
            with pytest.raises(VideoError, match="damaged: ") as caught:
                open_video(path)
        finally:
            os.sched_setaffinity(0, cores)
        said.add(caught.value.reason)
    assert len(said) == 1


def test_playlists_are_no_videos(tmp_path: Path) -> None:
    write(tmp_path / "other.mp4", FRAMES[:5])
    (tmp_path / "concat.mp4").write_text("ffconcat version 1.0\nfile 'other.mp4'\n" * 3)
    (tmp_path / "hls.mp4").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "sub.avi").write_text("1\n00:00:00,000 --> 00:00:01,000\ntext\n")
    for name in ("concat.mp4", "hls.mp4", "sub.avi"):
        with pytest.raises(VideoError, match="cannot be decoded"):
            open_video(tmp_path / name)


def test_a_pattern_in_a_name_is_no_list_of_files(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"clip{i}.gif", FRAMES[:2], "gif", "gray")
    path = write(tmp_path / "other.gif", FRAMES[:5], "gif", "gray")
    path = path.rename(tmp_path / "clip%d.gif")
    assert len(open_video(path)) == 5


def test_every_flipped_bit_of_a_png_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    Image.fromarray(moving(1, 9, 12)[0]).save(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(VideoError, match=re.escape(str(path))):
            read_image(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(VideoError, match=re.escape(str(path))):
            read_image(path)
