"""Evaluations on other data than the run's own, and what is said of their patients."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from runs import make_data, make_run

from usucl._files import read_json
from usucl.evaluation import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = {"frames_per_video": 2, "queries_per_video": 1, "resamples": 20}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluated")
    run = make_run(root / "run", make_data(root / "data", videos=4, frames=3))
    evaluate(run=run, data=root / "data", **FEW)
    return root


def make_others(root: Path, *, labels: bool = True) -> Path:
    make_data(root, videos=3, frames=3, labels=labels)
    for video in root.glob("video_*"):
        video.rename(root / f"other{video.name}")
    if labels:
        table = (root / "labels.csv").read_text()
        table = table.replace("\nvideo_", "\nothervideo_").replace("patient_", "p")
        (root / "labels.csv").write_text(table)
    return root


def test_other_data_have_a_folder_of_their_own(evaluated: Path, tmp_path: Path) -> None:
    run = shutil.copytree(evaluated / "run", tmp_path / "run")
    before = files(run)
    here = make_others(tmp_path / "here" / "scans")
    there = make_others(tmp_path / "there" / "scans", labels=False)
    first = evaluate(run=run, data=here, **FEW)
    second = evaluate(run=run, data=there, **FEW)
    again = evaluate(run=run, data=here, **FEW)
    folders = run / "evaluations"
    assert sorted(path.name for path in folders.iterdir()) == ["scans", "scans-2"]
    assert read_json(folders / "scans" / "evaluation.json") == again.to_json() == first.to_json()
    assert read_json(folders / "scans-2" / "evaluation.json") == second.to_json()
    assert {n: c for n, c in files(run).items() if not n.startswith("evaluations")} == before
    assert not first.own_data and first.data == str(here)
    assert first.patients == "known" and second.patients == "unknown"
    assert first.held_out == ("othervideo_0", "othervideo_1", "othervideo_2")
    with pytest.raises(ValueError, match="another folder than the run's"):
        evaluate(run=run, data=here, out=run, **FEW)
    assert {n: c for n, c in files(run).items() if not n.startswith("evaluations")} == before


def test_the_same_videos_are_own_data_wherever_they_are(evaluated: Path, tmp_path: Path) -> None:
    run = shutil.copytree(evaluated / "run", tmp_path / "run")
    data = shutil.copytree(evaluated / "data", tmp_path / "moved")
    result = evaluate(run=run, data=data, **FEW)
    assert result.own_data and result.held_out == ("video_0", "video_1")
    assert not (run / "evaluations").exists()
    shutil.rmtree(data / "video_3")
    assert not evaluate(run=run, data=data, **FEW).own_data
    (run / "config.yaml").write_text(f"# usucl run: x\ndata: {data}\n")
    assert evaluate(run=run, data=data, **FEW).own_data  # one of the run's videos is gone
    same_names = shutil.copytree(evaluated / "data", tmp_path / "same_names")
    assert not evaluate(run=run, data=same_names, **FEW).own_data
    (run / "config.yaml").write_text("# usucl run: x\ndata: /gone\n")
    assert evaluate(run=run, data=same_names, **FEW).own_data  # moved


def test_another_run_is_not_written_to(evaluated: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    mark = "# usucl run: overwrite replaces the results beside this file\n"
    (other / "config.yaml").write_text(mark)
    with pytest.raises(ValueError, match="folder of another run"):
        evaluate(run=evaluated / "run", data=evaluated / "data", out=other, **FEW)
    assert [path.name for path in other.iterdir()] == ["config.yaml"]


def test_intervals_are_over_videos_where_patients_are_unknown(
    evaluated: Path, tmp_path: Path
) -> None:
    data = make_others(tmp_path / "data", labels=False)
    result = evaluate(run=evaluated / "run", data=data, out=tmp_path / "out", **FEW)
    assert result.protocol.interval.endswith("over videos, whose patients are unknown")
    assert result.retrieval["same_video"]["trained"].note == "only 3 videos: no interval"


def test_a_pattern_of_the_run_is_used_and_may_be_replaced(evaluated: Path, tmp_path: Path) -> None:
    run = shutil.copytree(evaluated / "run", tmp_path / "run")
    (run / "config.yaml").write_text("patient_pattern: 'othervideo_([01])'\n")
    data = make_others(tmp_path / "data", labels=False)
    with pytest.warns(UserWarning, match="1 of 3 videos"):
        assert evaluate(run=run, data=data, **FEW).patients == "partly"
    result = evaluate(run=run, data=data, patient_pattern="(other)", **FEW)
    assert result.patients == "known" and result.counts["held_out"].patients == 1
    assert result.patient_pattern == "(other)"
    with pytest.warns(UserWarning, match="the run's pattern is not used"):
        evaluate(run=run, data=evaluated / "data", out=tmp_path / "out", **FEW)


@pytest.mark.parametrize("name", ["frames_per_video", "queries_per_video", "resamples", "folds"])
def test_numbers_too_small_are_refused(evaluated: Path, name: str) -> None:
    least = 2 if name == "folds" else 1
    with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {least - 1}"):
        evaluate(run=evaluated / "run", data=evaluated / "data", **{**FEW, name: least - 1})
