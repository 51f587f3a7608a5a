"""What a file is, its contents tell: without a suffix, with a wrong one, in every container."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_dicom import write as write_dicom
from tiny_videos import moving, write

from usucl.data import VideoCatalog, VideoError, open_video
from usucl.data.video import is_video_file

FRAMES = moving(8)
CONTAINERS = {
    "asf": ("asf", "msmpeg4", "yuv420p"),
    "avi": ("avi", "mjpeg", "yuvj420p"),
    "flv": ("flv", "flv1", "yuv420p"),
    "gif": ("gif", "gif", "gray"),
    "h264": ("h264", "libx264", "yuv420p"),
    "ivf": ("ivf", "libvpx", "yuv420p"),
    "m2v": ("mpeg2video", "mpeg2video", "yuv420p"),
    "mkv": ("matroska", "libx264", "yuv420p"),
    "mov": ("mov", "mpeg4", "yuv420p"),
    "mpg": ("mpeg", "mpeg2video", "yuv420p"),
    "mts": ("mpegts", "mpeg2video", "yuv420p"),
    "mxf": ("mxf", "mpeg2video", "yuv420p"),
    "nut": ("nut", "mpeg4", "yuv420p"),
    "ogv": ("ogg", "libvpx", "yuv420p"),
    "rm": ("rm", "rv20", "yuv420p"),
    "wtv": ("wtv", "mpeg2video", "yuv420p"),
    "y4m": ("yuv4mpegpipe", "wrapped_avframe", "yuv420p"),
    "3gp": ("3gp", "mpeg4", "yuv420p"),
}


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_containers_are_known_by_content(tmp_path: Path, suffix: str) -> None:
    container, codec, pixels = CONTAINERS[suffix]
    path = write(tmp_path / f"a.{suffix}", FRAMES, codec, pixels, container=container)
    video = open_video(path)
    assert len(video) == 8 and (video.height, video.width) == (48, 64)
    assert abs(video[-1][0].float().numpy() - FRAMES[-1][..., 0]).mean() < 25
    for name in ("IM_0001", "export.dat", "a.bak.7"):
        other = path.rename(tmp_path / name)
        assert is_video_file(other) and len(open_video(other)) == 8
        path = other


def test_wrong_suffixes_mislead_nobody(tmp_path: Path) -> None:
    write(tmp_path / "a.gif", FRAMES, "gif", "gray").rename(tmp_path / "gif.mp4")
    write(tmp_path / "a.mp4", FRAMES).rename(tmp_path / "film.gif")
    write(tmp_path / "b.mp4", FRAMES).rename(tmp_path / "film.png")
    write(tmp_path / "c.mp4", FRAMES).rename(tmp_path / "film.dcm")
    write_dicom(tmp_path / "loop.avi", np.stack(FRAMES)[..., 0])
    Image.new("L", (8, 8)).save(tmp_path / "still.mp4", "jpeg")
    pages = [Image.fromarray(frame) for frame in FRAMES]
    pages[0].save(tmp_path / "stack", "tiff", save_all=True, append_images=pages[1:])
    for name in ("gif.mp4", "film.gif", "film.png", "film.dcm", "loop.avi", "stack"):
        assert len(open_video(tmp_path / name)) == 8, name
    with pytest.raises(VideoError, match="a single image, not a video"):
        open_video(tmp_path / "still.mp4")


def test_jpegs_in_a_row_are_a_video(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mjpg", FRAMES, "mjpeg", "yuvj420p", container="mjpeg")
    assert len(open_video(path)) == 8


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"ffconcat version 1.0\nfile 'other.mp4'\n", b"#EXTM3U\nother.ts\n",
     b"const rate: number = 25;\n" * 200, bytes(5000), b"OggS" + bytes(200), b"\0\0\0\x1cftypavif"],
    ids=range(8),
)  # fmt: skip
def test_other_files_are_no_videos(tmp_path: Path, content: bytes) -> None:
    for name in ("file", "file.ts", "file.dat"):
        (tmp_path / name).write_bytes(content)
        assert not is_video_file(tmp_path / name)
        with pytest.raises(VideoError, match="not a known video format"):
            open_video(tmp_path / name)


def test_the_suffix_is_enough_where_it_is_known(tmp_path: Path) -> None:
    names = {"a.mp4": True, "a.DCM": True, "a.png": False, "DICOMDIR": False, "none": False}
    for name, is_video in names.items():
        assert is_video_file(tmp_path / name) is is_video  # though there is no such file


def test_a_catalogue_finds_videos_by_content(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", FRAMES).rename(tmp_path / "IM_0001")
    write_dicom(tmp_path / "IM_0002", np.stack(FRAMES)[..., 0])
    shutil.copytree(tmp_path, tmp_path / "nested")
    (tmp_path / "IM_0003").write_text("nothing")
    catalog = VideoCatalog.scan(tmp_path)
    assert [entry.num_frames for entry in catalog] == [8] * 4
    assert [item.path.name for item in catalog.skipped] == ["IM_0003"]


@pytest.mark.parametrize("name", ["archive.zip", "loop.dcm.gz", "gzip.mp4", "loops.tar", "IM_0001"])
def test_packed_files_are_to_be_unpacked(tmp_path: Path, name: str) -> None:
    loop = write_dicom(tmp_path / "loop.dcm", np.stack(FRAMES)[..., 0])
    packed = tmp_path / name
    if name.endswith((".zip", ".tar")):
        shutil.make_archive(str(packed.with_suffix("")), packed.suffix[1:], tmp_path, "loop.dcm")
    else:
        packed.write_bytes(gzip.compress(loop.read_bytes()))
    with pytest.raises(VideoError, match="unpack it first"):
        open_video(packed)
    (skipped,) = VideoCatalog.scan(tmp_path).skipped
    assert skipped.path == packed and "unpack it first" in skipped.reason


def test_what_desktops_leave_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", FRAMES)
    for name in ("Thumbs.db", "desktop.ini", "frames/Thumbs.db", "__MACOSX/._a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\xd0\xcf\x11\xe0" * 9)
    for i, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{i}.png")
    catalog = VideoCatalog.scan(tmp_path)
    assert [entry.id for entry in catalog] == ["a", "frames"] and not catalog.skipped


def test_documents_are_told_from_archives(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", FRAMES)
    for name in ("labels.xlsx", "letter.docx"):
        (tmp_path / name).write_bytes(b"PK\3\4")
    reasons = {item.path.name: item.reason for item in VideoCatalog.scan(tmp_path).skipped}
    assert reasons == {
        "labels.xlsx": "a spreadsheet, which is not read: save its table as .csv",
        "letter.docx": "no video or image format that is read",
    }
