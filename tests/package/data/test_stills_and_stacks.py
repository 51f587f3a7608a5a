"""An image file of several pictures is a video; stills that are no frames are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_dicom import write as write_dicom
from tiny_videos import moving, write

from usucl.data import VideoCatalog, VideoError, open_video
from usucl.data.catalog.scanning.manifest import Manifest
from usucl.data.catalog.scanning.search import find_videos

FRAMES = moving(6, 16, 24)
PICTURES = [Image.fromarray(frame) for frame in FRAMES]


def stack(path: Path, count: int = 6, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PICTURES[0].save(path, save_all=True, append_images=PICTURES[1:count], **options)
    return path


def still(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PICTURES[0].save(path)
    return path


def found(root: Path) -> tuple[list[str], list[str]]:
    there = find_videos(root, Manifest(root, None))
    return [v.path.name for v in there.videos], sorted(s.path.name for s in there.skipped)


@pytest.mark.parametrize("suffix", ["tif", "tiff", "png", "webp"])
def test_stacks_are_videos_of_their_own(tmp_path: Path, suffix: str) -> None:
    for patient in range(3):
        stack(tmp_path / f"patient{patient}.{suffix}", lossless=True)
    stack(tmp_path / "alone" / f"only.{suffix}", lossless=True)
    catalog = VideoCatalog.scan(tmp_path)
    assert [e.id for e in catalog] == ["only", "patient0", "patient1", "patient2"]
    assert [e.num_frames for e in catalog] == [6] * 4
    frames = catalog.entries[0].open().frames([5, 0])
    assert torch.equal(frames, torch.stack([torch.tensor(FRAMES[i]) for i in (5, 0)]).movedim(3, 1))


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_animations_have_times(tmp_path: Path, suffix: str) -> None:
    video = open_video(stack(tmp_path / f"a.{suffix}", duration=[40, 40, 120, 40, 40, 40]))
    assert video.times is not None
    assert video.times.tolist() == pytest.approx([0, 0.04, 0.08, 0.2, 0.24, 0.28])
    assert video.frame_rate == pytest.approx(5 / 0.28)


def test_pictures_that_are_no_frames_are_passed_over(tmp_path: Path) -> None:
    apng = stack(tmp_path / "a.png", default_image=True)
    assert len(open_video(apng)) == 5
    small = PICTURES[0].resize((6, 4))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    PICTURES[0].save(tmp_path / "b.tif", save_all=True, append_images=[small])
    with pytest.raises(VideoError, match="a single image, not a video"):
        open_video(tmp_path / "b.tif")


def test_a_cut_stack_is_damaged(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"damaged: picture \d of 6 cannot be decoded"):
        open_video(path)
    kept = open_video(path, damaged="keep")
    assert 0 < len(kept) < 6 and kept.damage is not None


def test_a_stack_is_no_frame_of_a_folder(tmp_path: Path) -> None:
    still(tmp_path / "0.png")
    stack(tmp_path / "1.png")
    with pytest.raises(VideoError, match=r"1\.png: holds 6 images"):
        open_video(tmp_path)


@pytest.mark.parametrize("video", ["b.mp4", "b.gif", "b.tif", "sub/c.mp4/0.png", "a1.dcm"])
def test_stills_beside_videos_are_left_out(tmp_path: Path, video: str) -> None:
    names = ["a1.jpg", "a2.jpg", "b.jpg"] if "b." in video else ["a1.jpg", "a2.jpg"]
    for name in names:
        still(tmp_path / name)
    if video.endswith(("mp4", "gif")):
        write(tmp_path / video, FRAMES, "mpeg4" if video.endswith("mp4") else "gif",
              "yuv420p" if video.endswith("mp4") else "gray")  # fmt: skip
    elif video.endswith("tif"):
        stack(tmp_path / video)
    elif video.endswith("dcm"):
        write_dicom(tmp_path / video, np.stack(FRAMES)[..., 0])
    else:
        for i in range(2):
            still(tmp_path / "a1" / f"{i}.png")
    videos, skipped = found(tmp_path)
    assert videos == (["a1"] if video.startswith("sub") else [video])
    assert set(names) <= set(skipped)


def test_stills_without_a_common_name_are_no_video(tmp_path: Path) -> None:
    for name in ("smith_01.png", "smith_02.png", "jones_01.png"):
        still(tmp_path / "mixed" / name)
    for name in ("frame 1.png", "Frame-2.jpg", "frame(10).bmp"):
        still(tmp_path / "frames" / name)
    videos, skipped = found(tmp_path)
    assert videos == ["frames"]
    assert skipped == ["jones_01.png", "smith_01.png", "smith_02.png"]


def test_counted_frames_beside_a_video_are_a_video(tmp_path: Path) -> None:
    for i in range(3):
        still(tmp_path / "study" / f"{i:03}.png")
    stack(tmp_path / "study" / "clip.tif")
    assert found(tmp_path) == (["study", "clip.tif"], [])
