"""Evaluations with another column of labels, with labels of some frames, and of sweeps."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from runs import make_data, make_run

from usucl.data import VideoCatalog
from usucl.embedding import Embeddings
from usucl.evaluation import embed, evaluate
from usucl.gallery import Gallery
from usucl.report.results import probe_rows
from usucl.run_folder import RunFolder

FEW = {"frames_per_video": 4, "queries_per_video": 1, "resamples": 5}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data that have a column b_lines, and with a run."""
    root = tmp_path_factory.mktemp("labels")
    data = make_data(root / "data", videos=8, frames=8)
    with (data / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (data / "labels.csv").open("w") as file:
        file.write("video_id,label,patient,B Lines\n")
        for row in rows:
            lines = "yes" if row["video_id"][-1] in "0145" else "no"
            file.write(f"{row['video_id']},{row['label']},{row['patient']},{lines}\n")
    make_run(root / "run", data, held_out=2)
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "both")


def test_the_label_is_that_of_the_run_unless_another_is_given(folder: Path) -> None:
    run, data = RunFolder(folder / "run"), folder / "data"
    assert run.scan(data).label == "label"
    run.config.write_text(f"# usucl run: x\ndata: {data}\nlabel: b_lines\n")
    result = evaluate(run=run.path, data=data, **FEW)
    assert result.label == "b_lines" and result.probes["label"].classes == ("no", "yes")
    assert {row.name.split(" of")[0] for row in probe_rows(result)} == {"b_lines"}
    assert {entry.label for entry in run.scan(data, label="label")} == {"across", "along"}
    (data / "labels.csv").write_text("video_id,label\nvideo_0,x\nvideo_4,y\n")
    with pytest.warns(UserWarning, match=r"the run's label is not used: .*got 'b_lines'"):
        assert run.scan(data).label == "label"
    with pytest.raises(ValueError, match="got 'zone'; the columns are label"):
        evaluate(run=run.path, data=data, label="zone", **FEW)


def test_only_labelled_frames_are_probed_and_they_come_first(folder: Path) -> None:
    run, data = folder / "run", folder / "data"
    rows = [f"video_{v},{5 + v % 2},7,{'ab'[v // 2 % 2]}\n" for v in range(7)]
    (data / "frame_labels.csv").write_text("video_id,frame,last_frame,label\n" + "".join(rows))
    with pytest.warns(UserWarning, match="7 of 7 videos have labels of some frames only"):
        result = evaluate(run=run, data=data, **FEW)
    probes = result.probes["frame_label"]
    assert probes is not None and probes.classes == ("a", "b")
    assert probes.protocols["held_out"] is not None
    found = Embeddings.load(RunFolder(run).embeddings, "trained")
    frames = {
        v: [(f, label) for w, f, label in zip(*rows_of(found), strict=True) if w == v]
        for v in ("video_0", "video_1", "video_7")
    }
    assert frames["video_0"] == [(2, None), (5, "a"), (6, "a"), (7, "a")]
    assert [f for f, label in frames["video_1"] if label] == [6, 7]
    assert frames["video_7"] == [(1, None), (3, None), (5, None), (7, None)]


def rows_of(found: Embeddings) -> tuple[list[str], list[int], tuple[str | None, ...]]:
    videos = [found.video_id[v] for v in found.video.tolist()]
    return videos, found.frame.tolist(), found.frame_label


def test_sweeps_are_evaluated_embedded_and_searched(folder: Path) -> None:
    run, data = folder / "run", folder / "data"
    rows = "".join(f"exam_{v // 2},video_{v},{-v}\n" for v in range(8))
    (data / "sweeps.csv").write_text(f"sweep_id,part,order\n{rows}")
    result = evaluate(run=run, data=data, label="b_lines", **FEW)
    assert sum(count.videos for count in result.counts.values()) == 4
    assert result.held_out == ("exam_0", "exam_1") and result.own_data
    assert result.probes["frame_label"] is not None and result.retrieval["temporal"]
    found = embed(run=run, data=data, label="b_lines")
    assert len(found) == 64 and set(found.frame_label) == {"yes", "no"}
    plain = embed(run=run, data=data, sweep="none", out=folder / "plain")
    own = found.embedding[:8].numpy()  # of video_1, which comes before video_0
    assert np.allclose(own, plain.embedding[8:16].numpy(), atol=1e-5)

    gallery = Gallery.build(run=run, data=data, out=folder / "bank", label="b_lines")
    again = Gallery.open(folder / "bank")
    assert again.contents == gallery.contents and len(again.contents.videos) == 4
    assert [v.label for v in again.contents.videos] == ["yes", "no", "yes", "no"]
    match = again.search(data / "video_0" / "3.png", k=1)
    assert match.query.video == "exam_0" and again.describe(match.matches[0][0]).frame == 11
    pictures = again.contents.pictures([0, 8], 32)
    assert not isinstance(pictures[0], Exception) and not isinstance(pictures[8], Exception)
    assert (folder / "bank" / "bank.json").is_file()
    with pytest.raises(FileExistsError):
        Gallery.build(run=run, data=data, out=folder / "bank", label="label")


def test_clips_of_a_sweep_that_was_trained_on_are_known(folder: Path) -> None:
    run, data = RunFolder(folder / "run"), folder / "data"
    joined = VideoCatalog.scan(data).with_sweeps(r"(video)_(?P<part>[01])")
    assert [e.id for e in joined][:2] == ["video", "video_2"]
    run.write_split(
        *(VideoCatalog(data, entries) for entries in (joined.entries[:1], joined.entries[1:]))
    )
    header, first, *_ = run.split.read_text().splitlines()
    assert header.endswith(",clips") and first.endswith('"[""video_0"", ""video_1""]"')
    clips = VideoCatalog.scan(data)
    assert run.held_out_videos(clips) == (False, False) + (True,) * 6
    assert run.held_out_videos(joined) == (False,) + (True,) * 6
    training, held_out = run.stored_split(joined)
    assert [e.id for e in training] == ["video"] and len(held_out) == 6
    run.config.write_text(f"# usucl run: x\ndata: {data}\nsweep: '(video)_(?P<part>[01])'\n")
    assert run.holds(clips) and run.holds(joined) and run.scan(data) == joined
    assert run.scan(data, sweep="none") == clips
    run.config.write_text(f"# usucl run: x\ndata: {data}\nsweep: '(other)'\n")
    with pytest.warns(UserWarning, match="the run's sweeps are not used: .*no two clips alike"):
        assert run.scan(data) == clips
