"""``usucl train --dry-run``: what a run would do, and nothing done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import make_data

from usucl.cli import main
from usucl.report.figures.curriculum import draw_curriculum
from usucl.training import plan, read_config

ALL: dict[str, Any] = {"backbone": "resnet10", "image_size": 32, "dim": 8, "held_out": []}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), videos=6, frames=30)


def test_the_curriculum_of_the_paper(videos: Path) -> None:
    planned = plan(data=videos, preset="paper", pretrained=False, videos=4, **ALL)
    assert planned.cross_only == 10
    stages = [(s.epochs, s.window, s.reached) for s in planned.stages()]
    assert stages == [
        ("1-10", None, 0),
        ("11-30", (0.2, 0.4), 6),
        ("31-50", (0.1, 0.15), 6),
        ("51-60", (0.03, 0.07), 6),
    ]
    frames = [s.frames for s in planned.stages() if s.frames]
    assert frames == [pytest.approx(window) for window in ((6, 12), (4, 6), (4, 6))]
    facts = dict(planned.rows())
    assert facts["steps"] == "2 per epoch, 120 in 60 epochs"
    assert facts["decoded frames"].endswith("frames") and " MB" in facts["decoded frames"]
    assert facts["batch"].startswith("3 anchors of 3 videos, 1 positive and 3 intra-video negativ")
    assert facts["decoded frames"].startswith("6 videos at 32 px")
    assert "last batch" not in facts and "1,024 frames in the bank" in facts["negatives"]


def test_a_smaller_last_batch_is_told(tmp_path: Path) -> None:
    five = make_data(tmp_path, videos=5, frames=6)
    facts = dict(plan(data=five, preset="paper", pretrained=False, videos=3, **ALL).rows())
    assert facts["batch"].startswith("3 anchors") and facts["last batch"].startswith("2 anchors")


def test_more_processes_than_videos_are_refused(videos: Path) -> None:
    with pytest.raises(ValueError, match=r"running.devices must be at most 3, .*got 4 processes"):
        plan(data=videos, devices=2, nodes=2, **{"sampling.videos": 3}, **ALL)


def test_windows_that_change_with_every_epoch_are_told_in_a_dozen_lines(videos: Path) -> None:
    linear = {"curriculum.kind": "linear", "windows": [[0.5, 2.0], [0.9, 0.95]]}
    planned = plan(data=videos, **ALL, **linear)
    stages = planned.stages()
    assert len(stages) == 12
    assert [stages[i].epochs for i in (0, 1, -1)] == ["1-5", "6", "50"]
    assert stages[1].window == (0.5, 2.0) and stages[-1].window == pytest.approx((0.9, 0.95))
    assert [stage.reached for stage in stages[1:]] == [6] * 11
    assert {len(stage.bar) for stage in stages[1:]} == {30}
    constant = {"curriculum.kind": "constant", "windows": [[1.0, 2.0]], "cross_only": 0}
    far = plan(data=videos, **ALL, **constant)
    assert [(s.epochs, s.reached) for s in far.stages()] == [("1-50", 0)]
    none = plan(data=videos, **ALL, intra_k=0)
    assert [(s.epochs, s.window) for s in none.stages()] == [("1-50", None)]


def test_hardness_does_not_know_its_epochs(videos: Path, tmp_path: Path) -> None:
    hardness = {"curriculum.kind": "hardness", "narrow_below": 0.25}
    planned = plan(data=videos, **ALL, **hardness)
    assert [stage.epochs for stage in planned.stages()] == [
        "1-5",
        "from 6, until similarity < 0.25",
        "later",
    ]
    assert draw_curriculum(planned, tmp_path / "new" / "a.PDF").read_bytes().startswith(b"%PDF")


def test_a_dry_run_prints_and_writes_nothing(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train",
        str(videos),
        "--dry-run",
        "--no-measure",
        "--set",
        "image_size=32",
        "epochs=6",
    ]
    out = tmp_path / "run"
    assert main([*words, "--out", str(out), "--held-out"]) == 0
    assert list(tmp_path.iterdir()) == []
    printed = capsys.readouterr().out
    start = printed.split("\n\n")[0]
    config = tmp_path / "printed.yaml"
    config.write_text(start)
    assert read_config(config, {}) == read_config(
        "dense", {"image_size": 32, "epochs": 6, "data": str(videos), "held_out": []}
    )
    for text in ("48 anchors of 6 videos", "4 per epoch, 24 in 6 epochs", "6 of 6", "cross-video"):
        assert text in printed
    for name in ("plot.png", "plot.svg"):
        assert main([*words, "--plot", str(tmp_path / name)]) == 0
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "plot.svg").read_text()


def test_impossible_dry_runs_are_refused(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dry = ["train", str(videos), "--dry-run"]
    for words, message in (
        (["train", "--dry-run"], "DATA is required"),
        ([*dry, "--plot", str(tmp_path / "a.txt")], "--plot must be a name that ends in .png"),
        ([*dry, "--resume"], "--out must be given with --resume"),
        ([*dry, "--resume", "--out", str(videos)], "nothing to resume"),
        (["train", str(videos), "--out", "x", "--no-measure"], "--no-measure must be given with"),
        ([*dry, "--set", "sampling.positives=0"], "sampling.positives must be in [1, 1024]"),
        ([*dry, "--set", "sampling.guard=2"], "sampling.guard must be in [-1, 1], got 2"),
        ([*dry, "--set", "balance=fold"], "sampling.balance must be one of video, patient, fr"),
        ([*dry, "--out", str(videos)], "is not empty and holds no run"),
        (
            ["train", str(videos), "--out", str(tmp_path / "x"), "--plot", str(tmp_path / "a.png")],
            "--plot must be given with --dry-run",
        ),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
