"""``Gallery.build``: a gallery is complete even if its build is interrupted."""

from __future__ import annotations

import logging
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import forking
from shell import write_run
from small_gallery import assert_same_gallery, interrupt

from usucl.data import Skipped
from usucl.gallery import Gallery, Progress, Resumed
from usucl.gallery.contents import UNFINISHED


def test_what_a_build_leaves(bank: Path, videos: Path, run: Path) -> None:
    gallery = Gallery.open(bank)
    contents = gallery.contents
    assert [v.id for v in contents.videos] == list("abcde")
    assert vars(gallery.describe(5)) == {
        "slot": 5, "video": "b", "frame": 1, "time": 0.25, "patient": "p1", "label": "stone",
        "fold": 0, "path": str(videos / "b"),
    }  # fmt: skip
    assert gallery.describe(5).name == "b @1"
    frames = gallery.bank.frames()
    assert frames.patient is not None
    assert frames.video.tolist() == contents.video.tolist()
    assert frames.patient.tolist() == [0] * 8 + [1] * 4 + [-1] * 4 + [2] * 3
    np.testing.assert_allclose(frames.time.numpy(), contents.time, rtol=1e-6)
    assert sorted(f.name.split("-")[0] for f in bank.iterdir()) == ["bank", "bank.json", "contents"]

    with pytest.raises(FileExistsError, match="overwrite=True"):
        Gallery.build(run=run, data=videos, out=bank)
    for name in ("frames_per_video", "batch_size"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            Gallery.build(run=run, data=videos, out=bank, **{name: 0})


def test_a_build_tells_how_far_it_is(
    videos: Path, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each finished video is reported; a resumed build says which it need not embed again."""
    events: list[Progress | Resumed | Skipped] = []

    def stop_after_b(event: Progress | Resumed | Skipped) -> None:
        events.append(event)
        if isinstance(event, Progress) and event.video == "b":
            raise KeyboardInterrupt

    build = partial(Gallery.build, run=run, data=videos, out=tmp_path / "gallery")
    with pytest.raises(KeyboardInterrupt):
        build(progress=stop_after_b)
    assert isinstance(events[0], Skipped) and events[0].path == videos / "broken.mp4"
    assert events[1:] == [Progress(0, 19), Progress(4, 19, "a"), Progress(8, 19, "b")]
    events.clear()
    build(progress=events.append)
    assert events[1:] == [
        Resumed(2, 5), Progress(8, 19), Progress(12, 19, "c"), Progress(16, 19, "d"),
        Progress(19, 19, "e"),
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING):
        build(overwrite=True)
    assert "left out" in caplog.text and "broken.mp4" in caplog.text


@pytest.mark.at_length
def test_killed_at_any_moment(bank: Path, videos: Path, run: Path, tmp_path: Path) -> None:
    """SIGKILL at 30 moments, over and over an earlier bank: it stays whole, and the work does too.

    Each round starts where the one before was killed. After one that put the new bank in place, the
    next starts with the earlier bank and no work done.
    """
    out = tmp_path / "bank"
    earlier = tmp_path / "earlier"
    Gallery.build(run=write_run(tmp_path / "other", seed=1), data=videos, out=earlier)
    shutil.copytree(earlier, out)
    context = forking()
    rng = np.random.default_rng(0)
    arguments = {"run": run, "data": videos, "out": out, "overwrite": True}

    def start() -> Any:
        process = context.Process(target=Gallery.build, kwargs=arguments)
        process.start()
        return process

    whole = 0.0
    for _ in range(2):  # the first one starts the server
        began = time.monotonic()
        start().join()
        whole = time.monotonic() - began
    assert_same_gallery(out, bank)
    kills, parts = 0, set[str]()
    for _ in range(120):
        if kills == 30:
            break
        if Gallery.open(out).contents.source["run"] == str(run):  # finished: the next starts again
            shutil.rmtree(out)
            shutil.copytree(earlier, out)
            parts = set()
        process = start()
        time.sleep(float(rng.uniform(0.1, 1.0) * whole))
        process.kill()
        process.join()
        kills += process.exitcode == -9
        source = Gallery.open(out).contents.source  # whole, whichever it is
        assert_same_gallery(out, bank if source["run"] == str(run) else earlier)
        if source["run"] != str(run):
            now = {f.name for f in (out / UNFINISHED).glob("[!.]*")}
            assert parts <= now  # no finished video is lost
            parts = now
    assert kills == 30
    Gallery.build(**arguments)
    assert_same_gallery(out, bank)
    assert sorted(f.name.split("-")[0] for f in out.iterdir()) == ["bank", "bank.json", "contents"]


def test_killed_between_the_bank_and_the_clearing_up(
    videos: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bank"
    build = partial(Gallery.build, run=run, data=videos, out=out)
    with monkeypatch.context() as patch:
        patch.setattr("usucl.gallery.parts.Parts.remove", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build()
    (out / ".bank.json.99.tmp").touch()
    assert (out / UNFINISHED).is_dir()
    with pytest.raises(FileExistsError):
        build(dtype="float16")  # another gallery than the one that is there
    events: list[Any] = []
    assert len(build(progress=events.append)) == 19
    assert events == [Resumed(5, 5, complete=True)]
    assert not (out / UNFINISHED).exists() and not list(out.glob(".*"))
