"""Evaluation: figures by hand, intervals, splits without a shared patient, a whole small run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from runs import make_data, make_run

from usucl._files import read_json
from usucl.data import VideoCatalog
from usucl.embedding import encode
from usucl.evaluation import Embeddings, Evaluation, embed, evaluate
from usucl.evaluation.embed import PixelEncoder
from usucl.evaluation.schema import Count

pytestmark = pytest.mark.usefixtures("one_thread")


# Figures


def test_pixels_are_blind_to_brightness_and_contrast() -> None:
    images = torch.randn(4, 3, 40, 40)
    changed = 0.6 * images + 0.3
    _, before = encode(PixelEncoder(), images, 3, torch.device("cpu"))
    features, after = encode(PixelEncoder(), changed, 3, torch.device("cpu"))
    assert features.shape == (4, 32 * 32)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)  # float32 means of 1024 values
    torch.testing.assert_close(after.norm(dim=1), torch.ones(4))
    flat = encode(PixelEncoder(), torch.ones(1, 3, 40, 40), 1, torch.device("cpu"))[1]
    assert flat.isfinite().all()


def test_embeddings_come_back_from_their_files(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    run = make_run(tmp_path / "run", data)
    made = embed(run=run, data=data, frames_per_video=5)
    assert made.features.shape == (40, 512) and made.embedding.shape == (40, 8)
    assert made.time.max() < 1 and made.held_out[:2] == (True, True) and not any(made.held_out[2:])
    read = Embeddings.load(run / "embedded", "trained")
    for name in ("features", "embedding", "video", "frame", "time"):
        assert torch.equal(getattr(read, name), getattr(made, name))
    for name in ("video_id", "group", "label", "held_out", "frame_label"):
        assert getattr(read, name) == getattr(made, name)
    assert len(embed(run=run, data=data, out=tmp_path / "all", encoder="pixels")) == 96


def test_embed_keeps_what_is_there(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=2, frames=2)
    run = make_run(tmp_path / "run", data)
    embed(run=run, data=data)
    assert not (run / "embeddings").exists()  # the evaluation's, which the report reads
    with pytest.raises(FileExistsError, match="overwrite=True"):
        embed(run=run, data=data, frames_per_video=1)
    assert len(Embeddings.load(run / "embedded", "trained")) == 4
    embed(run=run, data=data, frames_per_video=1, overwrite=True)
    assert len(Embeddings.load(run / "embedded", "trained")) == 2
    with pytest.raises(FileExistsError, match="out must be a folder"):
        embed(run=run, data=data, out=data / "labels.csv", overwrite=True)


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=2)
    with pytest.raises(FileNotFoundError, match="run must be a run folder"):
        embed(run=tmp_path / "nowhere", data=data)
    run = make_run(tmp_path / "run", data)
    with pytest.raises(ValueError, match="encoder must be one of"):
        embed(run=run, data=data, encoder="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        evaluate(run=run, data=data, resamples=0)


# The whole


def test_evaluate_a_run(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=12, frames=8)
    run = make_run(tmp_path / "run", data, held_out=2)
    options = {"frames_per_video": 4, "queries_per_video": 2, "resamples": 200}
    result = evaluate(run=run, data=data, **options)
    written = read_json(run / "evaluation.json")
    assert written == result.to_json() and Evaluation.from_json(written) == result
    assert result.counts["held_out"] == Count(videos=4, patients=2, frames=16)
    assert result.counts["pretraining"].patients == 4
    for task in result.retrieval.values():
        assert set(task) == {"trained", "random", "pixels", "trained - random", "trained - pixels"}
        assert task["trained"].low is None  # two patients
    label = result.probes["label"]
    assert label is not None and label.classes == ("across", "along")
    crossed = label.protocols["cross_validation"]
    assert crossed is not None
    assert crossed.patients_per_class == {"across": 3, "along": 3} and crossed.chance == 0.5
    pixels = crossed.probes["linear"]["video"]["balanced_accuracy"]["pixels"]
    assert pixels.value == 1 and pixels.low == 1  # direction is plain to see
    assert crossed.source is not None and crossed.source["balanced_accuracy"].value == 1
    assert crossed.chosen["linear"]["trained"] == (None,) * 5  # three patients of a class, or two
    details = crossed.details["linear"]["video"]["pixels"]
    assert details.confusion == ((6, 0), (0, 6)) and details.overall["macro_f1"].value == 1
    # Of so few patients, 5 % and 20 % are the same as 1 %: one of each class.
    assert [(e.share, e.by_class) for e in crossed.efficiency] == [(0.01, True), (1.0, False)]
    assert crossed.efficiency[-1].figures["balanced_accuracy"]["trained"].value == (
        crossed.probes["linear"]["video"]["balanced_accuracy"]["trained"].value
    )
    assert result.probes["frame_label"] is None


def test_the_file_is_as_it_always_was(tmp_path: Path) -> None:
    """Other programs read it, so the names and the order of its fields stay."""
    data = make_data(tmp_path / "data", videos=12, frames=4)
    run = make_run(tmp_path / "run", data, held_out=2)
    evaluate(run=run, data=data, frames_per_video=2, queries_per_video=1, resamples=5)
    written = json.loads((run / "evaluation.json").read_text())
    assert list(written) == [
        "run", "data", "encoders", "protocol", "counts", "skipped", "retrieval", "geometry",
        "probes", "versions", "machine", "patients", "own_data", "held_out", "comparisons",
        "synthetic", "patient_pattern", "label", "sweep", "duplicates", "seal",
    ]  # fmt: skip
    assert list(written["protocol"]) == [
        "measured_on", "frames_per_video", "queries_per_video", "near_frames", "far_fraction",
        "hard_fraction", "knn", "linear", "interval", "folds", "resamples", "seed",
        "grids", "inner_folds", "min_frames",
    ]  # fmt: skip
    assert written["protocol"]["knn"] == {"neighbours": 20, "temperature": 0.07}
    assert written["protocol"]["grids"]["linear"] == [1e-4, 1e-3, 1e-2, 1e-1, 1]
    assert list(written["probes"]) == ["label", "frame_label"]
    assert list(written["probes"]["label"]) == ["classes", "held_out", "cross_validation"]
    crossed = written["probes"]["label"]["cross_validation"]
    assert list(crossed) == [
        "knn", "patients_per_class", "not_tested", "not_fitted", "chance", "linear", "source",
        "chosen", "details", "efficiency", "context",
    ]  # fmt: skip
    assert list(crossed["knn"]["video"]) == ["balanced_accuracy", "macro_auroc"]
    estimate = crossed["knn"]["frame"]["macro_auroc"]["trained - pixels"]
    assert list(estimate) == [
        "value", "low", "high", "groups", "note", "adjusted_low", "adjusted_high",
    ]  # fmt: skip
    assert list(written["machine"]) == ["system", "cpu_cores", "threads", "accelerator"]
    later = ("patients", "own_data", "held_out", "comparisons", "synthetic", "patient_pattern")
    for name in (*later, "label", "sweep", "duplicates"):
        del written[name]  # as earlier versions wrote it
    for name in ("grids", "inner_folds", "min_frames"):
        del written["protocol"][name]
    for protocol in ("held_out", "cross_validation"):
        for name in ("chosen", "details", "efficiency", "context"):
            del written["probes"]["label"][protocol][name]
    del estimate["adjusted_low"], estimate["adjusted_high"]
    earlier = Evaluation.from_json(written)
    assert earlier.patients == "known" and earlier.own_data and not earlier.synthetic
    assert earlier.duplicates is None
    assert earlier.held_out == () and earlier.comparisons == 2 * (1 + 16)  # no far frames
    assert sum(1 for _ in earlier.differences()) == earlier.comparisons
    del written["counts"]
    with pytest.raises(ValueError, match=r"that of an evaluation, got .*counts"):
        Evaluation.from_json(written)


def test_evaluate_without_labels_or_held_out_videos(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=3, labels=False)
    run = make_run(tmp_path / "run", data, held_out=0)
    options = {"frames_per_video": 4, "queries_per_video": 2, "resamples": 50}
    result = evaluate(run=run, data=data, **options)
    assert evaluate(run=run, data=data, out=tmp_path / "again", **options) == result
    assert result.protocol.measured_on == "pretraining videos"
    assert result.probes == {"label": None, "frame_label": None}
    assert result.retrieval["same_video"]["pixels"].value is not None


def test_sources_of_a_table_from_a_spreadsheet(tmp_path: Path) -> None:
    """With a byte order mark, and video names as the catalogue allows them."""
    data = make_data(tmp_path / "data", videos=4, frames=4)
    for patient in ("one", "two"):
        (data / patient).mkdir()
    for v in range(4):
        (data / f"video_{v}").rename(data / ("one", "two")[v % 2] / f"video_{v}")
    table = data / "labels.csv"
    text = table.read_text().replace("video_0", "one/video_0").replace(",source", ", source ")
    table.write_text(text, encoding="utf-8-sig")
    sources = {entry.id: entry.source for entry in VideoCatalog.scan(data)}
    north_south = ("north", "north", "south", "south")
    assert sources == {f"video_{v}": source for v, source in enumerate(north_south)}
    run = make_run(tmp_path / "run", data)
    result = evaluate(run=run, data=data, frames_per_video=2, queries_per_video=1, resamples=20)
    label = result.probes["label"]
    assert label is not None and label.protocols["cross_validation"].source is not None


def test_frame_labels_are_probed(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=6)
    rows = [(f"video_{v}", f, "left" if f < 6 else "right") for v in range(6) for f in range(12)]
    with (data / "frame_labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video_id", "frame", "label"), *rows])
    run = make_run(tmp_path / "run", data)
    result = evaluate(run=run, data=data, frames_per_video=6, queries_per_video=2, resamples=50)
    label = result.probes["frame_label"]
    assert label is not None
    crossed = label.protocols["cross_validation"]
    assert set(crossed.probes["knn"]) == {"frame"}
    assert crossed.source is not None  # both classes are in every video
    assert crossed.source["balanced_accuracy"].value == 0.5
