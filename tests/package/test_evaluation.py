"""Evaluation: figures by hand, intervals, splits without a shared patient, a whole small run."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from threadpoolctl import threadpool_limits

from usucl.data import VideoCatalog
from usucl.evaluation import Embeddings, embed, evaluate, probes
from usucl.evaluation.bootstrap import difference, estimate, resample_weights
from usucl.evaluation.embed import PixelEncoder, encode, evenly_spaced, held_out_videos
from usucl.evaluation.metrics import (
    auroc,
    balanced_accuracy,
    effective_rank,
    group_mean,
    macro_auroc,
    uniformity,
)
from usucl.evaluation.retrieval import NEAR_FRAMES, gallery_frames, query_auroc
from usucl.models import EncoderConfig, FrameEncoder, save_encoder

ROUNDING = 1e-9  # float64 sums of at most some thousand terms


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So little work per call: threads would spend their time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


def make_data(root: Path, *, videos: int = 8, frames: int = 12, labels: bool = True) -> Path:
    """Videos of a drifting bright bar, two per patient; the class is the bar's direction."""
    x = np.arange(48)
    rows = []
    for v in range(videos):
        folder = root / f"video_{v}"
        folder.mkdir(parents=True)
        for f in range(frames):
            bar = 200 * np.exp(-((x - 10 - 2 * f) ** 2) / 20) + 20 + 3 * v
            image = np.broadcast_to(bar, (48, 48))
            image = (image if v % 4 < 2 else image.T).astype(np.uint8)
            Image.fromarray(image).save(folder / f"{f}.png")
        source = "north" if v % 4 < 2 else "south"
        rows.append((f"video_{v}", "across" if v % 4 < 2 else "along", f"patient_{v // 2}", source))
    if labels:
        with (root / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("video_id", "label", "patient", "source"), *rows])
    return root


def make_run(run: Path, data: Path, held_out: int = 1) -> Path:
    """A run folder as training leaves it, with two random encoders."""
    config = EncoderConfig(backbone="resnet10", image_size=32, dim=8)
    for seed, folder in ((0, run / "initial"), (1, run)):
        torch.manual_seed(seed)
        save_encoder(FrameEncoder(config), folder)
    catalog = VideoCatalog.scan(data)
    groups = sorted({entry.group for entry in catalog})[:held_out]
    rows = [
        (e.id, e.group, e.label or "", "held_out" if e.group in groups else "train")
        for e in catalog
    ]
    with (run / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video_id", "group", "label", "part"), *rows])
    return run


# Figures


def test_auroc_by_hand() -> None:
    # pairs won: 0.9 beats both, 0.4 beats 0.1 and ties with 0.4
    assert auroc(np.array([0.9, 0.4]), np.array([0.4, 0.1])) == (2 + 1.5) / 4
    assert math.isnan(auroc(np.array([]), np.array([1.0])))


def test_uniformity_by_hand() -> None:
    # distances squared of e1, e2, -e1: 2, 4, 2
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    expected = math.log((2 * math.exp(-4) + math.exp(-8)) / 3)
    assert uniformity(points) == pytest.approx(expected, abs=ROUNDING)
    assert uniformity(torch.ones(5, 4) / 2) == pytest.approx(0, abs=ROUNDING)


def test_effective_rank_by_hand() -> None:
    assert effective_rank(torch.eye(6)) == pytest.approx(6, abs=ROUNDING)
    assert effective_rank(torch.ones(7, 3)) == pytest.approx(1, abs=1e-6)
    # singular values 3 and 1
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    rank = effective_rank(torch.diag(torch.tensor([3.0, 1.0])))
    assert rank == pytest.approx(math.exp(entropy), abs=ROUNDING)


@given(st.integers(0, 2**32 - 1))
def test_weights_are_repetitions(seed: int) -> None:
    """A figure at weights w is scikit-learn's figure of each group repeated w times."""
    rng = np.random.default_rng(seed)
    groups, n = 6, 40
    group = rng.integers(groups, size=n)
    group[:groups] = np.arange(groups)
    truth = rng.integers(3, size=n)
    score = rng.integers(5, size=(n, 3)) / 4  # with ties
    weights = rng.integers(0, 3, size=groups)
    repeated = np.repeat(np.arange(n), weights[group])
    if len(np.unique(truth[repeated])) < 3:
        return
    row = weights[None].astype(float)
    predicted = score.argmax(1)
    got = balanced_accuracy(truth, predicted, group, 3)(row)[0]
    expected = balanced_accuracy_score(truth[repeated], predicted[repeated])
    assert got == pytest.approx(expected, abs=ROUNDING)
    got = macro_auroc(truth, score, group, [0, 1, 2])(row)[0]
    each = [roc_auc_score(truth[repeated] == c, score[repeated, c]) for c in range(3)]
    assert got == pytest.approx(np.mean(each), abs=ROUNDING)


# Intervals


def test_interval_covers_the_mean_of_normal_groups() -> None:
    """95 % intervals of the mean of 40 normal values cover it in about 95 % of 300 trials."""
    rng = np.random.default_rng(0)
    intervals = [
        estimate(group_mean(rng.normal(size=40)), 40, resamples=400, seed=i) for i in range(300)
    ]
    covered = np.mean([e.low <= 0 <= e.high for e in intervals])  # type: ignore[operator]
    # the percentile bootstrap of 40 values covers some 93.5 %; 300 trials have a deviation of 1.4 %
    assert 0.89 <= covered <= 0.98


def test_interval_is_a_function_of_the_seed() -> None:
    values = group_mean(np.random.default_rng(1).normal(size=9))
    assert estimate(values, 9, seed=3) == estimate(values, 9, seed=3)
    assert estimate(values, 9, seed=3) != estimate(values, 9, seed=4)
    weights = resample_weights(9, 50, seed=3)
    assert (weights.sum(1) == 9).all()


def test_paired_difference_drops_what_both_share() -> None:
    shared = np.random.default_rng(2).normal(size=10)
    apart = difference(group_mean(shared + 0.25), group_mean(shared))
    e = estimate(apart, 10)
    assert e.value == pytest.approx(0.25) and e.low == pytest.approx(0.25)
    assert e.high == pytest.approx(0.25)


def test_no_interval_where_there_can_be_none() -> None:
    few = estimate(group_mean([0.1, 0.2, 0.3]), 3)
    assert few.value == pytest.approx(0.2) and few.low is None and "3 patients" in (few.note or "")
    lone = estimate(group_mean(np.arange(9.0)), 9, smallest_class=1)
    assert lone.low is None and "one patient" in (lone.note or "")
    undefined = estimate(group_mean([]), 0)
    assert math.isnan(undefined.value) and undefined.low is None


# Probes


@given(st.lists(st.integers(0, 9), min_size=6, max_size=40), st.integers(2, 5))
def test_no_patient_is_fitted_and_tested(patients: list[int], folds: int) -> None:
    group = np.array(patients)
    splits = probes.fold_splits(group % folds) + probes.held_out_split(group < 3)
    probes.check_splits(splits, group)
    tested = np.concatenate([s.test for s in probes.fold_splits(group % folds)])
    assert sorted(tested) == list(range(len(group)))


def test_a_shared_patient_is_refused() -> None:
    splits = probes.held_out_split(np.array([True, False, False]))
    with pytest.raises(ValueError, match="must not share a patient, got 1"):
        probes.check_splits(splits, np.array([7, 7, 8]))


@pytest.mark.parametrize("probe", probes.PROBES.values(), ids=probes.PROBES)
def test_probes_separate_what_is_separable(probe: probes.Probe) -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8) * 8
    truth = rng.integers(3, size=90)
    features = centres[truth] + rng.normal(size=(90, 8))
    probability = probe(features[:60], truth[:60], features[60:], 4)
    assert probability.shape == (30, 4)
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-6)
    assert (probability.argmax(1) == truth[60:]).mean() > 0.95
    assert (probability[:, 3] == 0).all()  # a class that was never fitted


def test_classes_missing_from_a_fit_or_a_test() -> None:
    truth = np.array([0, 0, 1, 1, 0, 1, 2])  # class 2 is only tested, class 3 nowhere
    features = np.eye(4, 5)[truth]
    held_out = np.arange(7) >= 4
    predictions, _ = probes.predict(
        probes.knn, features, truth, np.arange(7), probes.held_out_split(held_out), 4
    )
    assert predictions.fitted.tolist() == [True, True, False, False]
    figures = probes.statistics(predictions)
    one = np.ones((1, 3))
    assert figures["balanced_accuracy"](one)[0] == pytest.approx(2 / 3)  # class 2 always wrong
    assert figures["macro_auroc"](one)[0] == pytest.approx(1)  # of classes 0 and 1


def test_per_video_is_the_mean_over_frames() -> None:
    frames = probes.Predictions(
        truth=np.array([1, 1, 0]),
        probability=np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]]),
        group=np.array([5, 5, 6]),
        fitted=np.array([True, True]),
    )
    videos = probes.per_video(frames, np.array([3, 3, 1]))
    assert videos.truth.tolist() == [0, 1] and videos.group.tolist() == [6, 5]
    np.testing.assert_allclose(videos.probability, [[0.9, 0.1], [0.4, 0.6]])


def test_source_baseline_answers_with_the_source() -> None:
    probe = probes.source_baseline(["a", "a", "b", "a", "b", "c"], 2)
    column = np.arange(6.0)[:, None]
    got = probe(column[:3], np.array([0, 0, 1]), column[3:], 2)
    np.testing.assert_allclose(got, [[1, 0], [0, 1], [2 / 3, 1 / 3]])


# Retrieval


@given(st.integers(2, 400), st.integers(1, 12), st.integers(1, 30))
def test_gallery_holds_queries_and_their_neighbours(n: int, queries: int, spread: int) -> None:
    frames, is_query, is_spread = gallery_frames(n, queries, spread)
    assert (np.diff(frames) > 0).all() and frames[0] >= 0 and frames[-1] < n
    assert is_query.sum() == min(queries, n) and is_spread.sum() == min(spread, n)
    for query in frames[is_query]:
        near = range(max(0, query - NEAR_FRAMES), min(n, query + NEAR_FRAMES + 1))
        assert set(near) <= set(frames.tolist())
    assert len(evenly_spaced(n, None)) == n


def test_query_auroc_by_hand() -> None:
    frames = np.arange(20)
    similarity = 1.0 - np.abs(frames - 8) / 20  # falls with distance, the query's own frame on top
    perfect = query_auroc(similarity, 8, frames, 20, np.array([0.0, 0.1]))
    # 0.15 of 20 frames is 3: no frame is both beyond the neighbours and near
    assert perfect["temporal"] == 1 and math.isnan(perfect["temporal_hard"])
    assert perfect["same_video"] == 1
    similarity[8] = -1.0  # the query's own frame does not count
    assert query_auroc(similarity, 8, frames, 20, np.array([0.0]))["temporal"] == 1
    assert query_auroc(-similarity, 8, frames, 20, np.array([0.0]))["temporal"] == 0


# Embeddings


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


def test_unknown_videos_of_a_known_patient_are_not_held_out(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=6)
    run = make_run(tmp_path / "run", data)
    text = (run / "split.csv").read_text().splitlines()
    (run / "split.csv").write_text("\n".join(line for line in text if "video_3" not in line))
    held_out = held_out_videos(run, VideoCatalog.scan(data))
    assert held_out == (True, True, False, False, False, False)


def test_patients_named_after_training_count(tmp_path: Path) -> None:
    """A held-out video whose patient, by today's labels, was trained on is not held out."""
    data = make_data(tmp_path / "data", videos=4)
    table = (data / "labels.csv").rename(tmp_path / "labels.csv")
    run = make_run(tmp_path / "run", data)  # holds out video_0, on its own
    assert held_out_videos(run, VideoCatalog.scan(data)) == (True, False, False, False)
    table.rename(data / "labels.csv")  # video_0 and video_1 are of one patient
    assert not any(held_out_videos(run, VideoCatalog.scan(data)))


def make_two_sources(tmp_path: Path) -> tuple[Path, Path]:
    """Videos a/video_0, a/video_1, b/video_0, b/video_1, the first held out, and their run."""
    data = tmp_path / "data"
    for source in "ab":
        make_data(data / source, videos=2, frames=2, labels=False)
    return data, make_run(tmp_path / "run", data)


def test_trained_videos_are_known_from_a_part_of_the_folder(tmp_path: Path) -> None:
    data, run = make_two_sources(tmp_path)
    assert held_out_videos(run, VideoCatalog.scan(data)) == (True, False, False, False)
    assert held_out_videos(run, VideoCatalog.scan(data / "a")) == (True, False)
    assert held_out_videos(run, VideoCatalog.scan(data / "b")) == (False, False)
    (tmp_path / "link").symlink_to(data / "b")
    assert held_out_videos(run, VideoCatalog.scan(tmp_path / "link")) == (False, False)
    moved = data.rename(tmp_path / "moved")
    assert held_out_videos(run, VideoCatalog.scan(moved)) == (True, False, False, False)
    assert held_out_videos(run, VideoCatalog.scan(moved / "b")) == (False, False)


def test_trained_videos_are_known_beside_new_ones_of_their_name(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_data(data / "a", videos=2, frames=2, labels=False)
    run = make_run(tmp_path / "run", data)
    make_data(data / "b", videos=3, frames=2, labels=False)
    catalog = VideoCatalog.scan(data)
    assert [entry.id for entry in catalog][:2] == ["a/video_0", "a/video_1"]
    # b/video_1 is new, but nothing tells it from the trained video_1: rather seen than leaked
    assert held_out_videos(run, catalog) == (True, False, True, False, True)


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
    assert json.loads((run / "evaluation.json").read_text()) == result
    assert result["counts"]["held_out"] == {"videos": 4, "patients": 2, "frames": 16}
    assert result["counts"]["pretraining"]["patients"] == 4
    for task in result["retrieval"].values():
        assert set(task) == {"trained", "random", "pixels", "trained - random", "trained - pixels"}
        assert task["trained"]["low"] is None  # two patients
    label = result["probes"]["label"]
    assert label["classes"] == ["across", "along"]
    crossed = label["cross_validation"]
    assert crossed["patients_per_class"] == {"across": 3, "along": 3} and crossed["chance"] == 0.5
    pixels = crossed["linear"]["video"]["balanced_accuracy"]["pixels"]
    assert pixels["value"] == 1 and pixels["low"] == 1  # direction is plain to see
    assert crossed["source"]["balanced_accuracy"]["value"] == 1
    assert result["probes"]["frame_label"] is None


def test_evaluate_without_labels_or_held_out_videos(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=3, labels=False)
    run = make_run(tmp_path / "run", data, held_out=0)
    options = {"frames_per_video": 4, "queries_per_video": 2, "resamples": 50}
    result = evaluate(run=run, data=data, **options)
    assert evaluate(run=run, data=data, out=tmp_path / "again", **options) == result
    assert result["protocol"]["measured_on"] == "pretraining videos"
    assert result["probes"] == {"label": None, "frame_label": None}
    assert result["retrieval"]["same_video"]["pixels"]["value"] is not None


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
    assert "source" in result["probes"]["label"]["cross_validation"]


def test_frame_labels_are_probed(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=6)
    rows = [(f"video_{v}", f, "left" if f < 6 else "right") for v in range(6) for f in range(12)]
    with (data / "frame_labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video_id", "frame", "label"), *rows])
    run = make_run(tmp_path / "run", data)
    result = evaluate(run=run, data=data, frames_per_video=6, queries_per_video=2, resamples=50)
    probe = result["probes"]["frame_label"]["cross_validation"]
    assert set(probe["knn"]) == {"frame"} and "source" not in probe
