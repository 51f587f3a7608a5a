"""Frames reached from the key frame before them are those that decoding from the start gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_videos import moving, write

from usucl.data import Video, open_video
from usucl.data.video import restore_video, video_facts
from usucl.data.video.ffmpeg import seeking
from usucl.data.video.ffmpeg.stream import FrameStream

FRAMES = moving(80)
UNEVEN = [40 * i + 13 * (i % 3) + (500 if i > 50 else 0) for i in range(80)]
OPEN = {"x264-params": "open-gop=1:bframes=3"}
SOUGHT: dict[str, dict[str, Any]] = {
    "closed.mp4": {"codec": "libx264"},
    "open.mp4": {"codec": "libx264", "options": OPEN},
    "open.mkv": {"codec": "libx264", "options": OPEN},
    "uneven.mp4": {"codec": "libx264", "times": UNEVEN},
    "b.ts": {"codec": "mpeg2video", "container": "mpegts"},
    "b.avi": {"codec": "mpeg4"},
    "all.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "golden.webm": {"codec": "libvpx-vp9"},
    "b.wmv": {"codec": "wmv2"},
    "b.flv": {"codec": "flv1"},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
}
READ: dict[str, dict[str, Any]] = {  # from the start
    "all.gif": {"codec": "gif", "pixels": "gray"},
    "b.rm": {"codec": "rv20"},
    "bare.h264": {"codec": "libx264", "container": "h264"},
    "long.mp4": {"codec": "libx264", "group": 250},
}


def sequential(video: Video) -> torch.Tensor:
    """Every frame, decoded from the first one on."""
    alone = restore_video(video.path, video_facts(video))
    alone._keys = ()  # type: ignore[attr-defined]
    return alone[:]


def assert_equal_to_sequential(video: Video) -> None:
    frames = sequential(video)
    again = restore_video(video.path, json.loads(json.dumps(video_facts(video))))
    for index in np.random.default_rng(0).permutation(len(video))[:12].tolist():
        assert torch.equal(again[index], frames[index]), index
    for part in (slice(None), slice(41, None, 7), slice(-3, None), slice(2, 70, 30)):
        assert torch.equal(again[part], frames[part]), part


@pytest.mark.parametrize("name", [*SOUGHT, *READ])
def test_random_access_equals_sequential_decoding(tmp_path: Path, name: str) -> None:
    how = {"group": 12, **(SOUGHT | READ)[name]}
    video = open_video(write(tmp_path / name, FRAMES, **how))
    assert bool(video._keys) is (name in SOUGHT)  # type: ignore[attr-defined]
    assert_equal_to_sequential(video)


@pytest.mark.parametrize(
    "name", ["Reg_pat2Image_134441.mpeg", "Pneu_northumbria_0409_set1_vid1.avi"]
)
def test_original_files_are_sought_in(data_root: Path, name: str) -> None:
    video = open_video(data_root / "original_videos" / name)
    assert video._keys  # type: ignore[attr-defined]
    frames = sequential(video)
    for index in (len(video) - 1, 50, 71, 12):
        assert torch.equal(video[index], frames[index]), index


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = open_video(write(tmp_path / "a.mp4", FRAMES, "libx264", group=12))
    decoded = 0
    whole = FrameStream.frames_from

    def counted(self: FrameStream, key: Any) -> Any:
        nonlocal decoded
        for frame in whole(self, key):
            decoded += 1
            yield frame

    monkeypatch.setattr(FrameStream, "frames_from", counted)
    video[77]
    assert 0 < decoded <= 12
    video.frames([0, 40, 41, 77, 40])
    assert decoded <= 12 + 6 + 12


def test_key_frames_that_give_other_frames_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mp4", FRAMES, "libx264", group=12)
    whole = FrameStream.frames_from

    def late(self: FrameStream, key: Any) -> Any:
        frames = whole(self, key)
        return list(frames)[1:] if key.number >= 36 else frames

    monkeypatch.setattr(FrameStream, "frames_from", late)
    video = open_video(path)
    assert not video._keys  # type: ignore[attr-defined]
    assert_equal_to_sequential(video)


def test_damaged_files_are_read_from_the_start(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", FRAMES, "libx264", group=12)
    path.write_bytes(path.read_bytes()[: path.stat().st_size - 700])
    video = open_video(path, damaged="keep")
    assert video.damage and not video._keys  # type: ignore[attr-defined]
    assert_equal_to_sequential(video)


def test_a_long_video_keeps_few_key_frames(tmp_path: Path) -> None:
    frames = [frame for frame in moving(20, 32, 32) for _ in range(50)]
    video = open_video(write(tmp_path / "a.avi", frames, "mjpeg", "yuvj420p"))
    numbers = [key.number for key in video._keys]  # type: ignore[attr-defined]
    assert len(numbers) <= seeking._MOST and max(np.diff([0, *numbers, 1000])) < 32
    assert torch.equal(video[999], sequential(video)[999])
