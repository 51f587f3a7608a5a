"""What objects say of themselves: one line, true, without all they hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from banks import frames
from runs import make_data, make_run

import usucl
from usucl import Gallery, NegativeBank, VideoCatalog
from usucl.bank import ShardedBank
from usucl.data import DenseSampler, FrameBatches, VideoDataModule
from usucl.embedding import Embeddings
from usucl.evaluation import evaluate
from usucl.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")


def test_banks() -> None:
    bank = NegativeBank(8, 6, dtype=torch.bfloat16)
    assert repr(bank) == "NegativeBank(0 of 8 x 6, bfloat16, exact, cpu)"
    bank.enqueue(frames(3, seed=0))
    assert repr(bank) == "NegativeBank(3 of 8 x 6, bfloat16, exact, cpu)"
    part = object.__new__(ShardedBank)  # of two, without a second process
    part.local, part.capacity = bank, 16
    part._exchange = type("Exchange", (), {"rank": 1, "size": 2})()  # type: ignore[assignment]
    assert repr(part) == f"ShardedBank(rank 1 of 2, 16 slots, here {bank!r})"


def test_videos_and_batches(tmp_path: Path) -> None:
    catalog = VideoCatalog.scan(make_data(tmp_path, videos=4, frames=3))
    assert repr(catalog) == f"VideoCatalog('{tmp_path}', 4 videos, 2 known patients, 0 skipped)"
    first = catalog.entries[0]
    assert repr(first) == ("VideoEntry('video_0', 3 frames, label 'across', patient 'patient_0')")
    bare = replace(first, label=None, group=first.id, patient_known=False, frame_rate=25.0, fold=1)
    assert repr(bare) == "VideoEntry('video_0', 3 frames, 25 Hz, fold 1)"
    assert "patients unknown" in repr(replace(catalog, entries=(bare,)))
    assert repr(first.open()).startswith("FrameFolder(") and "3 frames, 48x48" in repr(first.open())
    batches = FrameBatches(catalog, DenseSampler(videos=2, frames=3), image_size=32)
    assert repr(batches).startswith("FrameBatches(2 per epoch, of 4 videos, at 32x32, DenseSampler")
    module = VideoDataModule(catalog, DenseSampler(videos=2, frames=3), image_size=32)
    assert repr(module) == f"VideoDataModule({batches!r})"


def test_runs_and_what_is_made_of_them(tmp_path: Path) -> None:
    assert repr(RunFolder("nowhere")) == "RunFolder('nowhere', without results)"
    data = make_data(tmp_path / "data", videos=4, frames=3)
    run = make_run(tmp_path / "run", data)
    measured = evaluate(run=run, data=data, frames_per_video=2, queries_per_video=1, resamples=5)
    assert repr(RunFolder(run)) == f"RunFolder('{run}', encoder, evaluation)"
    for word in (str(run), str(data), "2 videos held out", "trained, random, pixels"):
        assert word in repr(measured)
    gallery = Gallery.build(run=run, data=data, out=tmp_path / "bank")
    assert repr(gallery) == f"Gallery('{tmp_path / 'bank'}', 4 videos, {gallery.bank!r})"
    embeddings = Embeddings.load(run / "embeddings", "trained")
    for thing in (RunFolder(run), measured, gallery, embeddings):
        assert "\n" not in repr(thing) and len(repr(thing)) < 400


def test_the_package_lists_its_public_names() -> None:
    assert dir(usucl) == sorted(usucl.__all__)
    for name in dir(usucl):
        assert getattr(usucl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'modls'"):
        usucl.modls.usage("run")
