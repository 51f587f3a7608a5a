"""``usucl bank build``: a bank is complete even if its build is interrupted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from shell import stderr_line, write_run, write_video
from small_gallery import assert_same_gallery, interrupt

from usucl.cli import main
from usucl.data import VideoError, load_frames
from usucl.gallery import Gallery
from usucl.gallery.contents import UNFINISHED


def test_a_bank_is_not_overwritten(
    bank: Path, videos: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bank", "build", str(run), str(videos), "--out", str(bank)]
    assert main(words) == 2
    assert "give --overwrite to replace it" in stderr_line(capsys)
    for option in ("frames-per-video", "batch-size"):
        assert main([*words, f"--{option}", "0"]) == 2
        assert f"error: --{option} must be at least 1" in stderr_line(capsys)


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

    monkeypatch.setattr("usucl.embedding.load_frames", interrupted)
    assert main(words) == 130
    assert len(list((out / UNFINISHED).iterdir())) == 2
    assert main(["bank", "info", str(out)]) == 2
    assert "unfinished" in capsys.readouterr().err

    def counted(entry: Any, *rest: Any) -> Any:
        read.append(entry.id)
        return load_frames(entry, *rest)

    (part, *_) = sorted((out / UNFINISHED).iterdir())
    part.write_bytes(part.read_bytes()[:-5])  # a damaged part is made again
    monkeypatch.setattr("usucl.embedding.load_frames", counted)
    assert main(words) == 0
    assert read[-3:] == list("cde") and len(read) == 4
    captured = capsys.readouterr()
    assert "1 of 5 videos are already finished" in captured.out
    assert "left out" in captured.err and "broken.mp4" in captured.err
    assert_same_gallery(out, bank)


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
        patch.setattr("usucl.gallery.contents.write", interrupt)
        assert main(words) == 130
    other = write_run(tmp_path / "other", seed=1)
    write_video(data / "new", 7)
    shutil.rmtree(data / "a")
    (data / "new").rename(data / "a")
    capsys.readouterr()
    assert main(["bank", "build", str(other), *words[3:]]) == 0
    said = capsys.readouterr().out
    assert "Continuing" not in said and "Not used: 5 videos" in said
    fresh = tmp_path / "fresh"
    assert main(["bank", "build", str(other), *words[3:-1], str(fresh)]) == 0
    assert_same_gallery(out, fresh)


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
    monkeypatch.setattr("usucl.embedding.load_frames", broken)
    out = tmp_path / "bank"
    words = ["bank", "build", str(run), str(videos), "--out", str(out), "--dtype", "bfloat16"]
    assert main(words) == 0
    assert f"left out: {videos / 'a'}: gone" in capsys.readouterr().err
    gallery = Gallery.open(out)
    assert [v.id for v in gallery.contents.videos] == ["b", "c", "e"]
    assert gallery.bank.capacity == len(gallery) == 11
    assert gallery.bank.dtype == torch.bfloat16

    broken_ids |= {"b", "c", "e"}
    assert main([*words, "--overwrite"]) == 2
    assert "readable" in capsys.readouterr().err
    assert len(Gallery.open(out)) == 11  # the earlier bank is still there


def test_a_search_that_does_not_exist_is_refused_before_the_work(
    videos: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bank", "build", str(run), str(videos), "--out", str(tmp_path / "bank")]
    assert main([*words, "--search", "no such index"]) == 2
    assert "search" in stderr_line(capsys)
    assert not (tmp_path / "bank").exists()
