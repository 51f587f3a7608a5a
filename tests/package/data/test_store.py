"""The frame store: the same frames as decoding, from files that are shared, checked and bounded."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import usucl.data.store.cache as cache
import usucl.data.store.store as store_module
from usucl.data import FrameBatches, FrameStore, StorePlan, VideoCatalog
from usucl.data.transforms import resize_short_side
from usucl.data.video import VideoError


@pytest.fixture
def catalog(tmp_path: Path) -> VideoCatalog:
    """A grey video of 40x30 pixels and a coloured one of 24x48."""
    rng = np.random.default_rng(0)
    for name, shape in (("colour", (48, 24, 3)), ("grey", (30, 40))):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "videos" / name / f"{i}.png")
    return VideoCatalog.scan(tmp_path / "videos")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def decoded(catalog: VideoCatalog, video: int) -> torch.Tensor:
    return resize_short_side(catalog.entries[video].open().frames(range(6)), 20)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*.safetensors"))


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> None:
        raise AssertionError("a frame is decoded")

    monkeypatch.setattr("usucl.data.video.images.folder.FrameFolder._decode", forbidden)


@pytest.mark.parametrize("limit", [0, 12_000, 10**9])
def test_store_gives_the_same_frames_whatever_fits(
    catalog: VideoCatalog, folder: Path, limit: int
) -> None:
    store = FrameStore(catalog.entries, 20, limit, folder=folder)
    assert store.stored_videos == {0: 0, 12_000: 0, 10**9: 2}[limit]
    colour, grey = store.frames(0, [5, 0, 5]), store.frames(1, np.array([2]))
    assert colour.shape == (3, 3, 40, 20) and grey.shape == (1, 1, 20, 26)
    assert torch.equal(colour, decoded(catalog, 0)[[5, 0, 5]])
    assert torch.equal(grey, decoded(catalog, 1)[2:3, :1])


def test_store_keeps_to_its_limit(catalog: VideoCatalog, folder: Path) -> None:
    one_video = 6 * 3 * 40 * 20
    store = FrameStore(catalog.entries, 20, one_video, folder=folder)
    assert (store.stored_videos, store.stored_bytes) == (1, one_video)
    assert FrameStore(catalog.entries, 20, one_video - 1, folder=folder).stored_videos == 0


def test_size_is_told_before_anything_is_decoded(catalog: VideoCatalog, folder: Path) -> None:
    least = 6 * (40 * 20 + 20 * 26)
    plan = StorePlan.of(catalog.entries, 20, 10**9, folder)
    assert plan.bytes == (least, 3 * least) and not folder.exists()
    size = "0.0 MB"
    assert str(plan) == f"2 videos at 20 px: {size} in {folder}"
    store = FrameStore(catalog.entries, 20, 10**9, plan=plan)
    again = StorePlan.of(catalog.entries, 20, 10**9, folder)
    assert again.bytes == (store.stored_bytes, store.stored_bytes) and not again.missing_bytes
    assert "2 of them decoded before" in str(again)
    assert "1 of 2 videos" in str(StorePlan.of(catalog.entries, 20, 3 * 6 * 40 * 20, folder))


def test_a_second_store_decodes_nothing(
    catalog: VideoCatalog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [decoded(catalog, 0), decoded(catalog, 1)[:, :1]]
    FrameStore(catalog.entries, 20, 10**9, folder=folder)
    again = VideoCatalog.scan(catalog.root)
    forbid_decoding(monkeypatch)
    store = FrameStore(again.entries, 20, 10**9, folder=folder)
    assert store.stored_videos == 2
    for video in (0, 1):
        assert torch.equal(store.frames(video, range(6)), before[video])


def test_a_changed_video_is_decoded_again(catalog: VideoCatalog, folder: Path) -> None:
    FrameStore(catalog.entries, 20, 10**9, folder=folder)
    Image.new("L", (40, 30), 7).save(catalog.root / "grey" / "3.png")
    store = FrameStore(VideoCatalog.scan(catalog.root).entries, 20, 10**9, folder=folder)
    assert (store.frames(1, [3]) == 7).all() and len(files(folder)) == 3


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "foreign", "other frames"])
def test_a_file_that_is_not_whole_is_made_again(
    catalog: VideoCatalog, folder: Path, harm: str
) -> None:
    FrameStore(catalog.entries, 20, 10**9, folder=folder)
    first, second = files(folder)
    content = bytearray(first.read_bytes())
    if harm == "cut":
        first.write_bytes(content[:-1])
    elif harm == "flip":
        content[len(content) // 2] ^= 1
        first.write_bytes(content)
    elif harm == "other frames":
        first.write_bytes(second.read_bytes())
    else:
        first.write_bytes(b"" if harm == "empty" else b"not ours" * 99)
    store = FrameStore(catalog.entries, 20, 10**9, folder=folder)
    assert torch.equal(store.frames(0, range(6)), decoded(catalog, 0))
    assert torch.equal(store.frames(1, range(6)), decoded(catalog, 1)[:, :1])


def test_a_file_that_vanishes_is_replaced_by_decoding(
    catalog: VideoCatalog, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FrameStore(catalog.entries, 20, 10**9, folder=folder)
    first, second = files(folder)
    first.unlink()
    second.write_bytes(second.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(store.frames(0, range(6)), decoded(catalog, 0))
            assert torch.equal(store.frames(1, [1]), decoded(catalog, 1)[1:2, :1])
    assert len(caplog.records) == 2


def test_without_room_on_the_disk_frames_stay_in_memory(
    catalog: VideoCatalog,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the store")

    monkeypatch.setattr(store_module, "write_stored", full)
    with caplog.at_level(logging.WARNING):
        store = FrameStore(catalog.entries, 20, 10**9, folder=folder)
    assert store.stored_videos == 2 and len(caplog.records) == 1
    assert "No space left on device" in caplog.text
    assert torch.equal(store.frames(0, range(6)), decoded(catalog, 0))
    forbid_decoding(monkeypatch)
    store.frames(1, [0])
    copied = pickle.loads(pickle.dumps(store))
    with pytest.raises(AssertionError, match="decoded"):
        copied.frames(1, [0])


def test_space_is_checked_before_writing(
    catalog: VideoCatalog,
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cache, "SPARE", 10**18)
    with caplog.at_level(logging.WARNING):
        assert FrameStore(catalog.entries, 20, 10**9, folder=folder).stored_videos == 2
        (tmp_path / "file").touch()
        store = FrameStore(catalog.entries, 20, 10**9, folder=tmp_path / "file" / "store")
    assert store.stored_videos == 2 and not files(folder)
    assert "only 0.0 MB of the disk" in caplog.text and "Not a directory" in caplog.text


def test_the_least_recently_used_files_are_removed(
    catalog: VideoCatalog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for side in (20, 22):
        FrameStore(catalog.entries, side, 10**9, folder=folder)
    of_20 = {place for place in StorePlan.of(catalog.entries, 20, 10**9, folder).places if place}
    for file in files(folder):
        os.utime(file, (0, 100 if file in of_20 else 200))
    FrameStore(catalog.entries, 20, 10**9, folder=folder)  # now the others are the oldest
    stale = next(iter(of_20)).with_name(".left.1.tmp")
    stale.touch()
    os.utime(stale, (0, 0))
    size = sum(file.stat().st_size for file in files(folder))
    needed = StorePlan.of(catalog.entries, 24, 10**9, folder).missing_bytes
    monkeypatch.setenv("USUCL_STORE_GB", str((size + needed - 1) / 1e9))
    FrameStore(catalog.entries, 24, 10**9, folder=folder)
    left = set(files(folder))
    assert of_20 <= left and len(left) == 5 and not stale.exists()
    monkeypatch.setenv("USUCL_STORE_GB", "much")
    with pytest.raises(ValueError, match="USUCL_STORE_GB must be a number of at least 0"):
        FrameStore(catalog.entries, 26, 10**9, folder=folder)


def test_stored_videos_of_the_right_size_are_read_where_they_are(
    catalog: VideoCatalog, folder: Path, tmp_path: Path
) -> None:
    FrameStore(catalog.entries, 20, 10**9, folder=folder)
    (tmp_path / "copies").mkdir()
    for number, file in enumerate(files(folder)):
        file.rename(tmp_path / "copies" / f"{number}.safetensors")
    copies = VideoCatalog.scan(tmp_path / "copies")
    store = FrameStore(copies.entries, 20, 0, folder=folder)
    assert store.stored_videos == 2 and not files(folder)
    shapes = {tuple(store.frames(video, [0, 3]).shape) for video in (0, 1)}
    assert shapes == {(2, 3, 40, 20), (2, 1, 20, 26)}


def test_a_video_that_cannot_be_read_any_more_is_named(catalog: VideoCatalog, folder: Path) -> None:
    (catalog.root / "grey" / "4.png").write_bytes(b"")
    with pytest.raises(VideoError, match=r"grey: 4\.png"):
        FrameStore(catalog.entries, 20, 10**9, folder=folder)


class Stored(Dataset[torch.Tensor]):
    """Frames of a store, as a data loader's worker reads them."""

    def __init__(self, store: FrameStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        assert self.store._memory == {} and len(self.store._files) == 2
        return self.store.frames(index % 2, [index // 2])


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_the_same_files(catalog: VideoCatalog, folder: Path, start: str) -> None:
    store = FrameStore(catalog.entries, 20, 10**9, folder=folder)
    assert len(pickle.dumps(store._files)) < 1000  # paths, no frames
    loader = DataLoader(
        Stored(store), batch_size=None, num_workers=1, multiprocessing_context=start
    )
    for index, frame in enumerate(loader):
        assert torch.equal(frame, store.frames(index % 2, [index // 2]))


def _make(root: Path, folder: Path, wait: float, made: Any) -> None:
    write = store_module.write_stored

    def slow(*args: Any, **options: Any) -> None:
        time.sleep(wait)
        write(*args, **options)
        made.put(str(args[0]))

    store_module.write_stored = slow
    FrameStore(VideoCatalog.scan(root).entries, 20, 10**9, folder=folder)


def test_processes_that_start_together_decode_once(catalog: VideoCatalog, folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    made = context.Queue()
    ranks = [
        context.Process(target=_make, args=(catalog.root, folder, 0.3, made)) for _ in range(2)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert sorted(made.get() for _ in range(2)) == [str(file) for file in files(folder)]
    assert made.empty()


def test_a_store_that_was_killed_goes_on(catalog: VideoCatalog, folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    made = context.Queue()
    process = context.Process(target=_make, args=(catalog.root, folder, 30, made))
    process.start()
    while not list(folder.glob("*.lock")):
        time.sleep(0.01)
    process.kill()
    process.join()
    store = FrameStore(catalog.entries, 20, 10**9, folder=folder)  # nothing is locked any more
    assert store.stored_videos == len(files(folder)) == 2


def test_training_batches_come_from_the_store(catalog: VideoCatalog) -> None:
    kept, decoded_each_time = FrameBatches(catalog), FrameBatches(catalog, cache_gb=0)
    assert kept.store_plan().videos == 2 and decoded_each_time.store_plan().videos == 0
    for one, other in zip(kept[0, 0], decoded_each_time[0, 0], strict=True):
        assert torch.equal(one.nan_to_num(-9), other.nan_to_num(-9))
