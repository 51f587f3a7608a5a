"""Patients in the shell: what ``data check`` finds, suggests and refuses, and evaluate's words."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from runs import make_data, make_run
from shell import write_video

from usucl.cli import main
from usucl.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread", "blank_pictures")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate(("pA/s1/a", "pA/s2/b", "pB/s1/c", "pB/s1/d")):
        write_video(tmp_path / "videos" / name, seed=i, frames=2)
    return tmp_path / "videos"


def check(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["data", "check", str(folder), *words])
    return code, *capsys.readouterr()


def test_a_suggested_command_shows_whom_it_finds(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = check(folder, capsys)
    assert code == 0 and "Patients unknown: split by video; a patient may be on both sides" in out
    (command,) = [line for line in out.splitlines() if "--patient-pattern" in line]
    assert shlex.split(command)[:3] == ["usucl", "data", "check"]
    assert main(shlex.split(command)[1:]) == 0
    out = capsys.readouterr().out
    assert "2 patients" in out and "a, b" in out and "c, d" in out and "unknown" not in out
    assert f"usucl train {folder} --patient-pattern '^([^/]+)/' --out RUN" in out


@pytest.mark.parametrize(
    ("pattern", "said"), [("(", "regular expression"), ("pA", "one group"), ("(q9)", "finds none")]
)
def test_a_bad_pattern_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], pattern: str, said: str
) -> None:
    code, out, err = check(folder, capsys, "--patient-pattern", pattern)
    assert code == 2 and out == "" and err.startswith("usucl: error: --patient-pattern must")
    assert said in err


@pytest.mark.parametrize(
    ("rows", "code", "said"),
    [
        ("a,x,p1,0 b,x,p1,1 c,y,p2,0 d,y,p2,0", 1, "lines 2 and 3 put patient 'p1' into folds"),
        ("a,x,p1,0 b,x,p1,0 c,y,p2,0 d,y,p2,0", 0, "every fold given is 0"),
        ("a,x,p1,0 b,x,p1,0 c,y,p2,1 e,y,p2,1", 0, "1 videos without a label in labels.csv: d"),
        ("a,x,p1,0 b,x,p1,0 c,y,p2,1 e,y,p2,1", 0, "no video in the folder is called e"),
        ("a,x,p1,0 b,x,p1,0 c,y,p2,1 a,y,p2,1", 1, "both name 'a'"),
        ("a,x,p1,first", 1, "fold must be a whole number"),
    ],
)
def test_what_train_would_refuse_is_found(
    folder: Path, capsys: pytest.CaptureFixture[str], rows: str, code: int, said: str
) -> None:
    table = "video_id,label,patient,fold\n" + rows.replace(" ", "\n") + "\n"
    (folder / "labels.csv").write_text(table)
    found, out, err = check(folder, capsys)
    assert found == code and said in out + err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("video_id,label\na,x\n".encode("utf-16"), "read as utf-16"),
        (b"video_id;label\na;x\n", "read as utf-8 with ';'"),
        (b"\x00\x9d\xff\x81" * 9, "labels.csv"),
    ],
)
def test_a_table_that_is_odd_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    (folder / "labels.csv").write_bytes(content)
    assert said in check(folder, capsys)[2]


def test_a_table_one_folder_down_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pA" / "labels.csv").write_text("video_id,label\na,x\n")
    assert str(folder / "pA" / "labels.csv") in check(folder, capsys)[2]


def test_evaluate_says_what_was_measured_on_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", make_data(tmp_path / "data", videos=4, frames=3))
    few = ["--frames-per-video", "2", "--queries-per-video", "1", "--resamples", "20"]
    assert main(["evaluate", str(run), str(tmp_path / "data"), *few, "--no-report"]) == 0
    out = capsys.readouterr().out
    assert "2 held-out videos of 1 patient of the data of the run" in out
    assert "By cross-validation over the labelled videos; pretraining saw 2 of all 4 (never" in out
    assert "unknown" not in out and "against pixels" in out
    assert "label of video 1; label of video, cross-validation 0.5." in out
    assert "Brackets" not in out  # of 2 patients there are no intervals
    start = RunFolder(RunFolder(run).initial).encoder_weights
    shutil.copy(start, RunFolder(run).encoder_weights)
    unseen = make_data(tmp_path / "unseen", videos=8, frames=3)
    for video in sorted(unseen.glob("video_*")):
        video.rename(unseen / f"new_{video.name}")
    table = (unseen / "labels.csv").read_text()
    table = table.replace("\nvideo_", "\nnew_video_").replace("patient_", "new_patient_")
    (unseen / "labels.csv").write_text(table)
    assert main(["evaluate", str(run), str(unseen), *few]) == 0
    out = capsys.readouterr().out
    assert out.startswith("This run did not learn. Training did not change the encoder")
    assert "over the labelled videos; pretraining saw none of all 8\n" in out
    html = (RunFolder(run).path / "evaluations" / "unseen" / "report.html").read_text("utf-8")
    assert "Pretraining saw none of these videos." in html and "not held out" not in html
    other = make_data(tmp_path / "other", videos=2, frames=3, labels=False)
    assert main(["evaluate", str(run), str(other), *few]) == 0
    out = capsys.readouterr().out
    assert "of other data than the run's" in out and "Patients unknown: split by video" in out
    made = run / "evaluations" / "other"
    assert (
        f"Report: {made / 'report.html'}" in out.splitlines() and not (run / "report.html").exists()
    )
    assert "other" in (made / "report.html").read_text(encoding="utf-8")
