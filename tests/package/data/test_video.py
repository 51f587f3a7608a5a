"""Reading videos: order, formats, true counts and times, and what is refused."""

from __future__ import annotations

import pickle
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from usucl.data import VideoError, open_video
from usucl.data.video import natural_key, video_facts
from usucl.data.video.ffmpeg import container

# (frames, Hz) as the table that came with the files has them; the mpeg states no count itself.
ORIGINALS = {
    "Cov_Atlas_44.gif": (41, 10),
    "Cov_recommendations_lightbeam_mov6.mov": (309, 29.97),
    "Pneu_northumbria_0409_set1_vid1.avi": (90, 22.25),
    "Reg_liftl_pneucase3_clip1.mp4": (24, 15),
    "Reg_pat2Image_134441.mpeg": (215, 25),
    "Vir_liftl_H1N1_case2_clip1.mp4": (36, 12),
}
CODECS = {".mp4": "mpeg4", ".mov": "mpeg4", ".avi": "mjpeg", ".mpg": "mpeg1video", ".gif": "gif"}


def write_video(path: Path, levels: list[int], rate: int = 25, size: int = 48) -> Path:
    """A file whose frame i is uniformly grey with level levels[i]."""
    formats = {"mjpeg": "yuvj420p", "gif": "gray"}
    with av.open(str(path), "w") as container:
        codec = CODECS[path.suffix]
        stream = container.add_stream(codec, rate=rate)
        stream.width = stream.height = size
        stream.pix_fmt = formats.get(codec, "yuv420p")
        stream.time_base = Fraction(1, rate)
        for i, level in enumerate(levels):
            picture = np.full((size, size, 3), level, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_frames(folder: Path, names: list[str], size: tuple[int, int] = (20, 12)) -> Path:
    """Images whose grey level is 10 times their place in ``names``."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.new("L", size, 10 * i).save(folder / name)
    return folder


@given(numbers=st.lists(st.integers(0, 10**6), unique=True, min_size=1), digits=st.integers(1, 8))
def test_natural_order_is_that_of_the_numbers(numbers: list[int], digits: int) -> None:
    names = [f"frame{number:0{digits}d}.png" for number in sorted(numbers)]
    shuffled = random.Random(0).sample(names, len(names))
    assert sorted(shuffled, key=natural_key) == names


def test_folder_in_natural_order_without_hidden_files(tmp_path: Path) -> None:
    names = ["frame1.png", "frame2.jpg", "frame10.bmp", "frame11.tif", "frame100.PNG"]
    folder = write_frames(tmp_path / "v", names)
    (folder / "._frame3.png").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("not a frame")
    video = open_video(folder)
    assert len(video) == video.num_frames == 5
    assert (video.height, video.width) == (12, 20)
    assert video.times is None and video.frame_rate is None
    frames = video.frames([0, 1, 2, 3, 4])
    assert frames.dtype == torch.uint8 and frames.shape == (5, 3, 12, 20)
    assert frames.float().mean((1, 2, 3)).tolist() == pytest.approx([0, 10, 20, 30, 40], abs=1)


def test_any_order_and_repeats(tmp_path: Path) -> None:
    video = open_video(write_frames(tmp_path / "v", [f"{i}.png" for i in range(6)]))
    assert video.frames([5, 0, 5])[:, 0, 0, 0].tolist() == [50, 0, 50]
    assert video.frames(torch.tensor([2])).shape == (1, 3, 12, 20)
    assert video.frames([]).shape == (0, 3, 12, 20)
    with pytest.raises(IndexError, match=r"indices must be in \[0, 6\), got 3 to 6"):
        video.frames([3, 6])
    with pytest.raises(IndexError, match="got -1"):
        video.frames([-1])
    with pytest.raises(ValueError, match="must be strictly increasing, got"):
        list(video.iter_frames([1, 1]))


def test_colour_and_palette_images_become_rgb(tmp_path: Path) -> None:
    for i, mode in enumerate(["RGB", "L", "P", "RGBA", "1"]):
        Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(tmp_path / f"{i}.png")
    assert torch.equal(open_video(tmp_path).frames(range(5)), torch.full((5, 3, 8, 8), 255))


@pytest.mark.parametrize("suffix", sorted(CODECS))
def test_formats(tmp_path: Path, suffix: str) -> None:
    levels = [20, 60, 100, 140, 180, 220]
    video = open_video(write_video(tmp_path / f"v{suffix}", levels))
    assert len(video) == 6
    assert (video.height, video.width) == (48, 48)
    assert video.frame_rate == pytest.approx(25, rel=0.01)
    assert video.times is not None
    assert video.times == pytest.approx(np.arange(6) / 25, abs=0.002)
    means = video.frames([4, 1, 5])[..., 8:40, 8:40].float().mean((1, 2, 3))
    # 3 codecs quantise and convert between colour spaces: a few grey levels.
    assert means.tolist() == pytest.approx([180, 60, 220], abs=6)
    copy = pickle.loads(pickle.dumps(video))
    assert torch.equal(copy.frames([2]), video.frames([2]))


@pytest.mark.parametrize("name", sorted(ORIGINALS))
def test_original_ultrasound_files(data_root: Path, name: str) -> None:
    video = open_video(data_root / "original_videos" / name)
    count, rate = ORIGINALS[name]
    assert len(video) == count
    assert video.frame_rate == pytest.approx(rate, rel=1e-3)
    assert video.times is not None and video.times[0] == 0 and np.all(np.diff(video.times) > 0)
    some = [count - 1, 0, count // 2]
    frames = video.frames(some)
    assert frames.shape == (3, 3, video.height, video.width)
    assert frames.float().mean() > 5
    assert all(
        torch.equal(video.frames([i])[0], frame) for i, frame in zip(some, frames, strict=True)
    )


def test_broken_folders(tmp_path: Path) -> None:
    def trouble(folder: Path) -> str:
        with pytest.raises(VideoError) as caught:
            open_video(folder)
        assert caught.value.path == folder
        assert str(folder) in str(caught.value)
        return caught.value.reason

    (tmp_path / "none").mkdir()
    assert trouble(tmp_path / "none") == "no image in the folder"
    zero = write_frames(tmp_path / "zero", ["0.png", "1.png"])
    (zero / "1.png").write_bytes(b"")
    assert trouble(zero) == "1.png: the file is empty"
    text = write_frames(tmp_path / "text", ["0.png", "1.png"])
    (text / "0.png").write_text("hello")
    assert trouble(text) == "0.png: not an image"
    sizes = write_frames(tmp_path / "sizes", ["0.png"])
    write_frames(sizes, ["1.png"], size=(30, 12))
    assert trouble(sizes) == "frames differ in size: 0.png is 20x12, 1.png is 30x12"
    write_frames(tmp_path / "deep", ["0.png", "1.png"])
    Image.fromarray(np.zeros((12, 20), np.uint16)).save(tmp_path / "deep" / "1.png")
    told = "frames differ in depth: 0.png has 8 bits, 1.png has 16 bits"
    assert trouble(tmp_path / "deep") == told


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_image_cut_short_is_noticed(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    file = tmp_path / f"0{suffix}"
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"cannot be decoded|cut short"):
        open_video(tmp_path)


def test_broken_files(tmp_path: Path) -> None:
    def trouble(path: Path) -> str:
        with pytest.raises(VideoError) as caught:
            open_video(path)
        return caught.value.reason

    assert trouble(tmp_path / "absent.mp4") == "no such file or folder"
    (tmp_path / "a.xyz").write_text("x")
    assert trouble(tmp_path / "a.xyz") == "not a known video format (.xyz)"
    (tmp_path / "empty.mp4").touch()
    assert trouble(tmp_path / "empty.mp4") == "the file is empty"
    (tmp_path / "text.avi").write_text("hello " * 100)
    assert "cannot be decoded" in trouble(tmp_path / "text.avi")
    cut = write_video(tmp_path / "cut.mp4", [50] * 30)
    cut.write_bytes(cut.read_bytes()[:400])
    assert "cannot be decoded" in trouble(cut)


def test_video_changed_after_opening(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", [10, 20, 30])
    video = open_video(path)
    write_video(path, [10])
    with pytest.raises(VideoError, match="frame 2 is gone"):
        video.frames([2])
    folder = write_frames(tmp_path / "f", ["0.png", "1.png"])
    frames = open_video(folder)
    (folder / "1.png").unlink()
    with pytest.raises(VideoError, match=r"1\.png"):
        frames.frames([1])


def test_a_colon_in_a_relative_name_is_no_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "study:7.mp4", [50, 100, 150])
    monkeypatch.chdir(tmp_path)
    video = open_video("study:7.mp4")
    assert len(video) == 3 and video.frames([1]).shape == (1, 3, 48, 48)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mpg", ".gif"])
@pytest.mark.parametrize("frames", [20, 70])
def test_files_that_are_read_once_and_twice_give_the_same(
    suffix: str, frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / f"v{suffix}", [3 * i for i in range(frames)])
    opened = []
    whole = av.open
    monkeypatch.setattr(av, "open", lambda *a, **k: opened.append(a) or whole(*a, **k))
    once = open_video(path)
    first = len(opened)
    monkeypatch.setattr(container, "_SMALL", 0)  # bytes
    twice = open_video(path)
    assert len(opened) == 2 * first + 1
    assert video_facts(once) == video_facts(twice) and len(once) >= frames - 1
    assert once.thumbnails is not None and twice.thumbnails is not None
    assert np.array_equal(once.thumbnails, twice.thumbnails)
