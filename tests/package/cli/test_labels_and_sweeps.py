"""``--label`` and ``--sweep`` in the shell, and what a run keeps of them."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest
from runs import BACKBONE
from shell import write_video

from usucl.cli import main
from usucl.training import read_config

pytestmark = pytest.mark.usefixtures("one_thread", "blank_pictures")
PATTERN = r"patient_(\d)_([LR])"
TINY = ["epochs=1", "steps_per_epoch=1", f"encoder.backbone={BACKBONE}", "encoder.image_size=32"]
TINY += ["sampling.videos=2", "sampling.frames=4", "key.bank=0", "encoder.dim=8"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = "video_id;zone;b_lines;patient\n"
    for number in (1, 2, 3, 4):
        for zone in ("L1", "L2", "R1"):
            name = f"patient_{number}_{zone}"
            write_video(tmp_path / "videos" / name, seed=number, frames=4)
            rows += f"{name};{zone};{'yes' if number > 1 else 'no'};{number}\n"
    (tmp_path / "videos" / "labels.csv").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    return tmp_path / "videos"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_data_check_shows_the_label_and_the_sweeps(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--label", "b_lines", "--sweep", PATTERN, "--patient-pattern", r"patient_(\d)")
    code, out, err = run(capsys, "data", "check", folder, *given)
    assert code == 0, err
    header, first = out.splitlines()[1], out.splitlines()[3]
    assert header.split() == ["video", "clips", "frames", "size", "b_lines", "patient"]
    assert first.split()[:3] == ["patient_1_L", "2", "8"] and first.split()[-2:] == ["no", "1"]
    assert "8 videos, 48 frames, 0 left out, 2 labels, 4 patients" in out
    assert f"8 of the videos are sweeps of 12 clips, by {PATTERN}" in out
    assert "Other columns that may be the label (--label): zone" in out
    (command,) = [line for line in out.splitlines() if line.startswith("If so: ")]
    words = shlex.split(command.removeprefix("If so: "))
    assert words[:3] == ["usucl", "train", str(folder)] and words[-2:] == ["--out", "RUN"]
    assert {*given} <= {*words}
    (folder / "sweeps.csv").write_text("sweep_id,part\nexam,patient_1_L1\nexam,patient_1_R1\n")
    code, out, _ = run(capsys, "data", "check", folder, "--label", "b_lines")
    assert code == 0 and "1 of the videos are sweeps of 2 clips, by sweeps.csv" in out
    code, out, _ = run(capsys, "data", "check", folder, "--label", "zone", "--sweep", "none")
    assert code == 0 and "12 videos" in out and "sweeps" not in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--label", "b_line"), 1, "--label must be a column of labels.csv, got 'b_line'"),
        ((), 1, "missing: label"),
        (("--label", "zone", "--sweep", "(x9)"), 1, "--sweep must be a pattern by which clips"),
        (("--sweep", "patient"), 2, "--sweep must be a regular expression with a group"),
        (("--sweep", "(("), 2, "--sweep must be a regular expression, got '(('"),
    ],
)
def test_a_wrong_column_or_pattern_is_named(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    found, out, err = run(capsys, "data", "check", folder, *words)
    assert found == code and said in err and not out


def test_a_run_keeps_its_label_and_sweeps(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train = ("train", folder, "--out", out, "--label", "b_lines", "--sweep", PATTERN)
    code, _, err = run(capsys, *train, "--held-out", 0, 1, "--set", *TINY)
    assert code == 0, err
    config = read_config(out / "config.yaml", {})
    assert (config.label, config.sweep) == ("b_lines", PATTERN)
    with (out / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["video_id"] for row in rows)[0] == "patient_1_L" and len(rows) == 8
    assert {row["label"] for row in rows} == {"yes", "no"}
    assert rows[0]["clips"].startswith('["patient_')
    code, _, err = run(capsys, *train, "--resume", "--label", "zone")
    assert code == 2 and "label cannot change when a run is resumed, got zone" in err
    code, _, err = run(capsys, "train", folder, "--out", out, "--resume", "--set", "epochs=2")
    assert code == 0, err
    code, said, err = run(capsys, "bank", "build", out, folder, "--out", tmp_path / "bank")
    assert code == 0 and "48 frames of 8 videos" in said, err
    assert "videos by b_lines  no: 2, yes: 6" in run(capsys, "bank", "info", tmp_path / "bank")[1]
    evaluate = ("evaluate", out, folder, "--frames-per-video", 2, "--queries-per-video", 1)
    code, said, err = run(capsys, *evaluate, "--resamples", 5)
    assert code == 0, err
    assert "b_lines of frame" in said and "Chance: AUROC 0.5; b_lines of" in said
    report = (out / "report.html").read_text()
    assert "b_lines of the frame" in report
    assert re.search(r"<br>patient_\d_[LR]\d, frame \d<", report)  # in the contact sheet
