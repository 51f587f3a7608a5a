"""``usucl bank build``: built whole, whatever interrupts it."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shell import stderr_line, write_run, write_video

from usucl.cli import main
from usucl.cli.bank.stored import UNFINISHED, StoredBank
from usucl.data import VideoError, load_frames


def _assert_same_bank(a: Path, b: Path) -> None:
    one, other = StoredBank.open(a), StoredBank.open(b)
    assert one.videos == other.videos
    for x, y in zip(one.bank.frames(), other.bank.frames(), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_what_a_build_leaves(
    bank: Path, videos: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = StoredBank.open(bank)
    assert [v.id for v in stored.videos] == list("abcde")
    assert stored.describe(5) == {
        "slot": 5, "video": "b", "frame": 1, "time": 0.25, "patient": "p1", "label": "stone",
        "fold": 0, "path": str(videos / "b"),
    }  # fmt: skip
    frames = stored.bank.frames()
    assert frames.patient is not None
    assert frames.video.tolist() == stored.video.tolist()
    assert frames.patient.tolist() == [0] * 8 + [1] * 4 + [-1] * 4 + [2] * 3
    np.testing.assert_allclose(frames.time.numpy(), stored.time, rtol=1e-6)
    assert sorted(f.name.split("-")[0] for f in bank.iterdir()) == ["bank", "bank.json", "contents"]

    assert main(["bank", "build", str(run), str(videos), "--out", str(bank)]) == 2
    assert "--overwrite" in stderr_line(capsys)


def test_an_interrupted_build_goes_on_where_it_was(
    bank: Path,
    videos: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "bank"
    words = ["bank", "build", str(run), str(videos), "--out", str(out)]
    read = []

    def interrupted(entry: Any, *rest: Any) -> Any:
        if entry.id == "c":
            raise KeyboardInterrupt
        return load_frames(entry, *rest)

    monkeypatch.setattr("usucl.data.load_frames", interrupted)
    assert main(words) == 130
    assert len(list((out / UNFINISHED).iterdir())) == 2
    assert main(["bank", "info", str(out)]) == 2
    assert "unfinished" in capsys.readouterr().err

    def counted(entry: Any, *rest: Any) -> Any:
        read.append(entry.id)
        return load_frames(entry, *rest)

    (part, *_) = sorted((out / UNFINISHED).iterdir())
    part.write_bytes(part.read_bytes()[:-5])  # a damaged part is made again
    monkeypatch.setattr("usucl.data.load_frames", counted)
    assert main(words) == 0
    assert read[-3:] == list("cde") and len(read) == 4
    captured = capsys.readouterr()
    assert "1 of 5 videos were finished before" in captured.out
    assert "left out" in captured.err and "broken.mp4" in captured.err
    _assert_same_bank(out, bank)


def test_leftovers_of_others_are_not_mixed_in(
    videos: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another encoder, and a video that was changed: what was embedded before is not used."""
    data, out = tmp_path / "videos", tmp_path / "bank"
    shutil.copytree(videos, data)
    words = ["bank", "build", str(run), str(data), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(StoredBank, "save", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(words) == 130
    other = write_run(tmp_path / "other", seed=1)
    write_video(data / "new", 7)
    shutil.rmtree(data / "a")
    (data / "new").rename(data / "a")
    capsys.readouterr()
    assert main(["bank", "build", str(other), *words[3:]]) == 0
    said = capsys.readouterr().out
    assert "Going on" not in said and "Not used: 5 videos" in said
    fresh = tmp_path / "fresh"
    assert main(["bank", "build", str(other), *words[3:-1], str(fresh)]) == 0
    _assert_same_bank(out, fresh)


def test_a_video_that_breaks_is_left_out(
    videos: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(entry: Any, *rest: Any) -> Any:
        if entry.id in broken_ids:
            raise VideoError(entry.path, "gone")
        return load_frames(entry, *rest)

    broken_ids = {"a", "d"}
    monkeypatch.setattr("usucl.data.load_frames", broken)
    out = tmp_path / "bank"
    words = ["bank", "build", str(run), str(videos), "--out", str(out), "--dtype", "bfloat16"]
    assert main(words) == 0
    assert f"left out: {videos / 'a'}: gone" in capsys.readouterr().err
    stored = StoredBank.open(out)
    assert [v.id for v in stored.videos] == ["b", "c", "e"]
    assert stored.bank.capacity == len(stored.bank) == 11
    assert stored.bank.dtype == torch.bfloat16

    broken_ids |= {"b", "c", "e"}
    assert main([*words, "--overwrite"]) == 2
    assert "readable" in capsys.readouterr().err
    assert len(StoredBank.open(out).bank) == 11  # the earlier bank is still there


def test_a_search_that_does_not_exist_is_refused_before_the_work(
    videos: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bank", "build", str(run), str(videos), "--out", str(tmp_path / "bank")]
    assert main([*words, "--search", "no such index"]) == 2
    assert "search" in stderr_line(capsys)
    assert not (tmp_path / "bank").exists()


def test_killed_at_any_moment(
    bank: Path, videos: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL at 30 moments, over and over an earlier bank: it stays whole, and the work does too.

    Each round starts where the one before was killed. After one that put the new bank in place, the
    next starts with the earlier bank and no work done.
    """
    out = tmp_path / "bank"
    earlier = tmp_path / "earlier"
    words = ["bank", "build", str(write_run(tmp_path / "other", seed=1)), str(videos)]
    assert main([*words, "--out", str(earlier)]) == 0
    shutil.copytree(earlier, out)
    # a server that has imported everything forks the children: no threads, and fast
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    modules = ("cli.bank.build", "cli.bank.parts", "cli.bank.stored", "evaluation.embed")
    context.set_forkserver_preload([f"usucl.{module}" for module in modules])
    rng = np.random.default_rng(0)
    words = ["bank", "build", str(run), str(videos), "--out", str(out), "--overwrite"]

    def start() -> Any:
        process = context.Process(target=main, args=(words,))
        process.start()
        return process

    whole = 0.0
    for _ in range(2):  # the first one starts the server
        began = time.monotonic()
        start().join()
        whole = time.monotonic() - began
    _assert_same_bank(out, bank)
    kills, parts = 0, set[str]()
    for _ in range(120):
        if kills == 30:
            break
        if StoredBank.open(out).source["run"] == str(run):  # finished: all the work anew
            shutil.rmtree(out)
            shutil.copytree(earlier, out)
            parts = set()
        process = start()
        time.sleep(float(rng.uniform(0.1, 1.0) * whole))
        process.kill()
        process.join()
        kills += process.exitcode == -9
        opened = StoredBank.open(out)  # whole, whichever it is
        _assert_same_bank(out, bank if opened.source["run"] == str(run) else earlier)
        if opened.source["run"] != str(run):
            now = {f.name for f in (out / UNFINISHED).glob("[!.]*")}
            assert parts <= now  # no finished video is lost
            parts = now
    assert kills == 30
    assert main(words) == 0
    _assert_same_bank(out, bank)
    assert sorted(f.name.split("-")[0] for f in out.iterdir()) == ["bank", "bank.json", "contents"]


def test_killed_between_the_bank_and_the_clearing_up(
    videos: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bank"
    words = ["bank", "build", str(run), str(videos), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr("usucl.cli.bank.parts.Parts.remove", _interrupt)
        assert main(words) == 130
    (out / ".bank.json.99.tmp").touch()
    assert (out / UNFINISHED).is_dir()
    assert main([*words, "--dtype", "float16"]) == 2  # another bank than the one that is there
    assert main(words) == 0
    assert not (out / UNFINISHED).exists() and not list(out.glob(".*"))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
