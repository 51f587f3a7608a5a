"""Images of more than 8 bits: one scaling for all frames of a folder or stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_videos import moving

from usucl.data import VideoError, open_video
from usucl.data.video import read_image, restore_video, video_facts

GREY = np.stack(moving(5, 36, 52))[..., 0].astype(np.int64) * np.arange(1, 6)[:, None, None]
KINDS: dict[str, tuple[Any, str]] = {
    "16 bits": (GREY.astype(np.uint16) * 40 + 300, "png"),
    "16 bits of TIFF": (GREY.astype(np.uint16) * 40 + 300, "tif"),
    "32 bits": (GREY.astype(np.int32) * 90000 - 5000, "tif"),
    "floating point": (GREY.astype(np.float32) / 7 - 20, "tif"),
}


def save(folder: Path, frames: np.ndarray, suffix: str) -> Path:
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.{suffix}")
    return folder


def scaled(frames: np.ndarray) -> np.ndarray:
    values = frames.astype(float)
    return np.round((values - values.min()) * 255 / (values.max() - values.min()))


def assert_scaled(video: Any, frames: np.ndarray) -> None:
    meant = scaled(frames)
    assert np.abs(video[:].numpy() - meant[:, None]).max() <= 1
    assert torch.equal(video[3], video[:][3])
    again = restore_video(video.path, json.loads(json.dumps(video_facts(video))))
    assert torch.equal(again[:], video[:])
    small = video.thumbnails.mean(axis=(1, 2))
    assert np.abs(small - meant.mean(axis=(1, 2))).max() < 4 and np.all(np.diff(small) > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_and_a_stack_have_one_scaling(tmp_path: Path, kind: str) -> None:
    frames, suffix = KINDS[kind]
    assert_scaled(open_video(save(tmp_path / "folder", frames, suffix)), frames)
    pages = [Image.fromarray(frame) for frame in frames]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert_scaled(open_video(tmp_path / "a.tif"), frames)
    alone = read_image(tmp_path / "folder" / f"2.{suffix}")
    assert np.abs(alone - scaled(frames[2])[..., None]).max() <= 1


def test_frames_are_upright(tmp_path: Path) -> None:
    frames, _ = KINDS["16 bits"]
    (tmp_path / "v").mkdir()
    for number, frame in enumerate(frames):
        turned = Image.fromarray(frame)
        turned.getexif()[0x0112] = 6
        turned.save(tmp_path / "v" / f"{number}.png", exif=turned.getexif())
    video = open_video(tmp_path / "v")
    assert (video.height, video.width) == (52, 36)
    assert np.abs(video[:].numpy() - scaled(np.rot90(frames, -1, (1, 2)))[:, None]).max() <= 1


def test_mixed_depths_are_told(tmp_path: Path) -> None:
    folder = save(tmp_path / "v", KINDS["16 bits"][0], "png")
    Image.new("L", (52, 36)).save(folder / "4.png")
    with pytest.raises(VideoError, match=r"differ in depth: 0\.png has 16 bits, 4\.png has 8 bits"):
        open_video(folder)
    pages = [Image.new("L", (52, 36)), Image.fromarray(KINDS["floating point"][0][0])]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(VideoError, match="frame 1 has floating point, the frames before it have 8"):
        open_video(tmp_path / "a.tif")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_values_that_are_not_finite_are_told(tmp_path: Path, wrong: float) -> None:
    frames = KINDS["floating point"][0].copy()
    frames[1, 5, 7] = wrong
    folder = save(tmp_path / "v", frames, "tif")
    with pytest.raises(VideoError, match=r"1\.tif: .*there are values that are not finite"):
        open_video(folder)
    assert len(open_video(folder, damaged="keep")) == 4


def test_a_black_video_stays_black(tmp_path: Path) -> None:
    video = open_video(save(tmp_path / "v", np.full((3, 8, 8), 700, np.uint16), "png"))
    assert not video[:].any()
