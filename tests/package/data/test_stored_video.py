"""Videos of plain pixels in one file: written in one piece, read back as any other video."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import Tensor

from usucl.data import VideoCatalog, VideoError, open_video
from usucl.data.video import Video, is_video_file, restore_video, video_facts
from usucl.data.video.stored import PixelFile, write_stored

SHAPE = (3, 20, 30)


class Source(Video):
    """Five frames that are grey, or of which one is coloured."""

    def __init__(self, coloured: int | None = None) -> None:
        self.path = Path("source")
        self.num_frames, self.height, self.width = 5, *SHAPE[1:]
        self.frame_rate, self.patient = 4.0, "é 1"
        self.times = np.array([0, 0.25, 0.5, 0.8, 1.0])
        grey = torch.arange(5 * 600, dtype=torch.int32).remainder(251).to(torch.uint8)
        self.pixels = grey.view(5, 1, 20, 30).repeat(1, 3, 1, 1)
        if coloured is not None:
            self.pixels[coloured, 0, 3, 3] ^= 1

    def _decode(self, indices: list[int]) -> Iterator[np.ndarray]:
        for index in indices:
            yield self.pixels[index].permute(1, 2, 0).contiguous().numpy()

    def all(self) -> Iterator[Tensor]:
        return self.iter_frames(range(5))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    source = Source()
    write_stored(tmp_path / "video.safetensors", source.all, source, notes={"size": 20})
    return tmp_path / "video.safetensors"


@pytest.mark.parametrize("coloured", [None, 0, 3])
def test_a_stored_video_is_the_video(tmp_path: Path, coloured: int | None) -> None:
    source, path = Source(coloured), tmp_path / "v.safetensors"
    write_stored(path, source.all, source)
    video = open_video(path)
    assert isinstance(video, PixelFile) and is_video_file(path)
    assert video.pixels.shape[1] == (1 if coloured is None else 3)
    assert torch.equal(video[:], source.pixels) and torch.equal(video[-2], source.pixels[-2])
    assert torch.equal(video.frames([3, 0, 3]), source.pixels[[3, 0, 3]])
    for a, b in zip(video.iter_frames([1, 4]), source.pixels[[1, 4]], strict=True):
        assert torch.equal(a, b)
    assert video.times is not None and np.array_equal(video.times, source.times)
    assert (video.frame_rate, video.patient, video.damage) == (4.0, "é 1", None)
    assert video.thumbnails is not None and video.thumbnails.shape == (5, 32, 32)
    assert video.frames([]).shape == (0, *SHAPE)
    with pytest.raises(IndexError, match="indices must be in"):
        video.frames([5])


def test_it_is_restored_from_facts_and_pickled_without_pixels(file: Path) -> None:
    video = open_video(file)
    facts = json.loads(json.dumps(video_facts(video)))
    assert torch.equal(restore_video(file, facts)[:], video[:])
    restored = pickle.dumps(restore_video(file, facts))
    assert len(restored) < 1000 and torch.equal(pickle.loads(restored)[:], video[:])


def test_other_readers_open_it(file: Path) -> None:
    tensors = safetensors.numpy.load_file(file)
    assert np.array_equal(tensors["frames"], Source().pixels[:, :1].numpy())
    assert set(tensors) == {"frames", "thumbnails", "times"}


def test_a_catalogue_finds_it_beside_other_files(file: Path) -> None:
    safetensors.numpy.save_file({"weights": np.zeros(3)}, file.with_name("model.safetensors"))
    (entry,) = (catalog := VideoCatalog.scan(file.parent))
    assert (entry.id, entry.num_frames, entry.frame_rate) == ("video", 5, 4.0)
    assert [item.path.name for item in catalog.skipped] == ["model.safetensors"]
    with pytest.raises(VideoError, match="a safetensors file that holds no video"):
        open_video(file.with_name("model.safetensors"))


def test_every_changed_byte_and_every_cut_is_noticed(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    copy = tmp_path / "copy.safetensors"
    for at in (*range(0, 1200, 7), *range(1200, len(content), 501)):
        copy.write_bytes(content[:at] + bytes([content[at] ^ 64]) + content[at + 1 :])
        with pytest.raises(VideoError):
            open_video(copy)
    for length in (0, 7, 8, 300, 2000, len(content) - 1):
        copy.write_bytes(content[:length])
        with pytest.raises(VideoError, match=r"damaged|empty|holds no video"):
            open_video(copy)


def test_a_header_may_not_lie(file: Path) -> None:
    """Sealed or not: nothing is allocated or mapped beyond the file."""
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    for old, new in ((b"[5, 1, 20, 30]", b"[9, 1, 20, 30]"), (b'"F64"', b'"F16"')):
        header = content[8 : 8 + length].replace(old, new).replace(b"sealed by usucl,", b"-" * 16)
        header = header.replace(b"sha256 ", b"-" * 7)
        file.write_bytes(content[:8] + header + content[8 + length :])
        with pytest.raises(VideoError, match="header is wrong"):
            open_video(file)


def test_a_file_that_changes_later_is_noticed(file: Path) -> None:
    video = open_video(file)
    first = video[0]
    shutil.copy(file, file.with_name("other"))
    with file.open("ab") as longer:
        longer.write(b"more")
    with pytest.raises(VideoError, match="changed after it was opened"):
        video.frames([1])
    file.with_name("other").replace(file)
    assert torch.equal(video[0], first)


def test_nothing_is_left_of_a_video_that_ends_early(tmp_path: Path) -> None:
    source = Source()
    with pytest.raises(VideoError, match="holds 3 frames, not 5"):
        write_stored(tmp_path / "v.safetensors", lambda: source.iter_frames(range(3)), source)
    assert not list(tmp_path.iterdir())
