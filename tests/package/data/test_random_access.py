"""Frames by index and slice, and videos that are restored without reading them again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_videos import moving, write

from usucl.data import Video, open_video
from usucl.data.video import restore_video, video_facts

CODECS = {".avi": ("mjpeg", "yuvj420p"), ".gif": ("gif", "gray"), ".mp4": ("mpeg4", "yuv420p")}


@pytest.fixture(params=["folder", "clip.avi", "clip.gif", "clip.mp4"])
def video(request: pytest.FixtureRequest, tmp_path: Path) -> Video:
    path = tmp_path / request.param
    if request.param == "folder":
        path.mkdir()
        for i, picture in enumerate(moving(12)):
            Image.fromarray(picture).save(path / f"{i}.png")
        return open_video(path)
    codec, pixels = CODECS[path.suffix]
    return open_video(write(path, moving(12), codec, pixels))


@pytest.mark.parametrize("index", [0, 5, -1, -12, np.int64(7)])
def test_an_index_gives_one_frame(video: Video, index: int) -> None:
    assert torch.equal(video[index], video.frames([index % 12])[0])


@pytest.mark.parametrize(
    "part", [slice(None), slice(2, 9, 3), slice(-4, None), slice(None, None, -1), slice(5, 5)]
)
def test_a_slice_gives_its_frames_in_order(video: Video, part: slice) -> None:
    assert torch.equal(video[part], video.frames(range(12)[part]))
    assert video[part].shape == (len(range(12)[part]), 3, video.height, video.width)


@pytest.mark.parametrize("index", [12, -13])
def test_an_index_outside_is_named(video: Video, index: int) -> None:
    with pytest.raises(IndexError, match=rf"index must be in \[-12, 12\), got {index}"):
        video[index]


def test_an_index_must_be_whole(video: Video) -> None:
    for index in (1.0, "1", [1, 2], np.array([1, 2])):
        with pytest.raises(TypeError, match=r"index must be a whole number or a slice"):
            video[index]  # type: ignore[call-overload]


@pytest.mark.parametrize("indices", [[1.5], [True, False], np.arange(12) > 3, ["1"]])
def test_indices_must_be_whole(video: Video, indices: object) -> None:
    for ask in (video.frames, lambda wanted: list(video.iter_frames(wanted))):
        with pytest.raises(TypeError, match=r"indices must be whole numbers"):
            ask(indices)  # type: ignore[arg-type]


def test_a_video_is_iterated_over_to_its_end(video: Video) -> None:
    assert len(list(video)) == 12  # type: ignore[call-overload]


def test_a_video_is_restored_from_its_facts_alone(video: Video) -> None:
    facts = json.loads(json.dumps(video_facts(video)))
    again = restore_video(video.path, facts)
    assert repr(again) == repr(video)
    assert json.loads(json.dumps(video_facts(again))) == facts
    assert torch.equal(again[:], video[:])
    assert again.thumbnails is None


def test_thumbnails_show_every_frame(video: Video) -> None:
    assert video.thumbnails is not None
    assert video.thumbnails.shape == (12, 32, 32)
    grey = video[:].float().mean(dim=(1, 2, 3))
    assert np.abs(video.thumbnails.mean(axis=(1, 2)) - grey.numpy()).max() < 3
