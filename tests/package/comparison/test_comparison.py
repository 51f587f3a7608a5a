"""Comparisons: their options, their runs, and that they go on where they were stopped."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import BACKBONE, make_data

from usucl.comparison import compare
from usucl.comparison.design.arms import Arm
from usucl.comparison.design.config import ComparisonConfig, read_config
from usucl.comparison.design.subject import number_in_share, read_subject
from usucl.comparison.measurement.predictions import FINETUNED, RunResult
from usucl.comparison.objectives import OBJECTIVES
from usucl.comparison.runs import Bench, Run, planned, without_main
from usucl.comparison.training.finetuning import finetune
from usucl.comparison.training.pretraining import first_encoder, pretrain, training_config
from usucl.data import VideoCatalog
from usucl.models import load_encoder
from usucl.training import train

TINY: dict[str, Any] = {
    "backbone": BACKBONE,
    "seeds": 2,
    "folds": 2,
    "steps": 2,
    "epochs": 1,
    "frames": 4,
    "videos": 2,
    "image_size": 32,
    "dim": 8,
    "probe_frames": 3,
    "shares": (1.0, 0.5),
    "retrieval": False,
}
PAIR = {"arm": "both", "reference": "simclr"}
ARMS = {
    "random": {"weights": "random"},
    "supervised": {"supervised": "all"},
    "ours": {"method": "dense", "options": {"loss.cross_k": 4}},
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of four patients; videos and frames have labels."""
    root = make_data(tmp_path_factory.mktemp("data"))
    rows = [(f"video_{v}", f, "early" if f < 6 else "late") for v in range(8) for f in range(12)]
    with (root / "frame_labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video_id", "frame", "label"), *rows])
    return root


def test_a_file_adds_to_a_preset_and_takes_out(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: full\nsteps: 24\narms: {simclr: null, mine: {method: paper}}\n")
    file.write_text(file.read_text() + "primary: [{arm: mine, reference: cross-only}]\n")
    config = read_config(file, {"seeds": "3", "shares": "1,0.5"})
    names = [arm.name for arm in config.arms]
    assert "simclr" not in names and names[-1] == "mine" and "byol" in names
    assert (config.steps, config.seeds, config.shares) == (24, 3, (1.0, 0.5))
    assert [(p.arm, p.reference, p.task) for p in config.primary] == [("mine", "cross-only", "")]


@pytest.mark.parametrize("preset", ["core", "full"])
def test_what_is_written_is_read(preset: str, tmp_path: Path) -> None:
    config = read_config(preset, {"data": "videos", "labels": ["a", "b"]})
    file = tmp_path / "comparison.yaml"
    file.write_text(config.to_yaml())
    assert read_config(file, {}) == config
    for arm in config.arms:
        if arm.method is not None:
            training_config(arm, config, 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": 3}, "step is no option of a comparison; did you mean steps?"),
        ({"steps": 5, "epochs": 2}, "steps must be a multiple of epochs 2, got 5"),
        ({"frames": 65}, "frames must be a multiple of videos 8, got 65"),
        ({"shares": "0.5"}, r"shares must lie in \(0, 1\] and hold 1, got 0.5"),
        ({"seeds": 0}, "seeds must be .*1.*, got 0"),
        ({"arms": {"a": {}}}, "arms.a must have exactly one of weights, .*, got none"),
        ({"arms": {"a": {"method": "dens"}}}, "arms.a.method must be one of .* did you mean dense"),
        ({"arms": {"a": {"objective": "simcl"}}}, "arms.a.objective must be .* mean simclr"),
        ({"arms": {"a/b": {"weights": "random"}}}, "arms must have names of letters"),
        ({"arms": {"a": {"weight": 1}}}, "arms.a.weight is no option of an arm; did you mean"),
        ({"primary": [{"arm": "bot", "reference": "simclr"}]}, "primary.0.arm .* mean both"),
        ({"primary": [{"arm": "both"}]}, "primary.0.reference must be given"),
        ({"primary": [PAIR | {"share": 0.3}]}, r"primary.0.share must be one of 1.0, 0.2, .*0.3"),
        (
            {"primary": [PAIR | {"probe": "finetuned"}]},
            "finetune must be at least 1 with",
        ),
        ({"primary": [PAIR | {"probe": "svm"}]}, "primary.0.probe must be one of linear, .*'svm'"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_config("core", changes)


def test_an_option_of_an_arm_is_checked_before_anything_is_trained(videos: Path) -> None:
    arms = {"ours": {"method": "dense", "options": {"loss.cros_k": 4}}}
    config = replace(read_config("core", {"data": str(videos)}), arms=(), primary=())
    arm = Arm("ours", **arms["ours"])
    with pytest.raises(ValueError, match=r"arms.ours.options: loss.cros_k .* did you mean"):
        training_config(arm, config, 0)


def test_labels_of_videos_and_of_frames_are_tasks(videos: Path) -> None:
    config = ComparisonConfig(data=str(videos), labels=("label",), folds=2)
    subject = read_subject(config)
    assert [(t.name, t.level, t.classes) for t in subject.tasks] == [
        ("label", "frame", ("early", "late")),
        ("label of videos", "video", ("across", "along")),
    ]
    assert subject.task("label").truth[0].tolist() == [0] * 6 + [1] * 6
    for fold in subject.folds:
        parts = [
            {e.group for e, kept in zip(subject.catalog, mask, strict=True) if kept}
            for mask in (subject.held_out(fold), ~subject.held_out(fold))
        ]
        assert all(parts) and not parts[0] & parts[1]
    with pytest.raises(ValueError, match=r"label must be a column of .*, got 'colour'"):
        read_subject(replace(config, labels=("colour",)))


def test_single_images_are_probed_and_not_for_mining(tmp_path: Path) -> None:
    root = make_data(tmp_path / "data", frames=1)
    options = TINY | {"data": str(root), "min_frames": 1, "retrieval": True, "labels": ("label",)}
    config = read_config("core", options | {"arms": ARMS | {"simclr": {"objective": "simclr"}}})
    bench = Bench(replace(config, primary=()), read_subject(config))
    for arm in ("random", "simclr"):
        bench.do(Run(0, 0, arm), tmp_path / arm)
        found = RunResult.load(tmp_path / arm)
        assert [len(p.truth) for p in found.predictions] == [4] * len(found.predictions)
    with pytest.raises(RuntimeError, match="videos of two frames or more, got single images"):
        bench.do(Run(0, 0, "ours"), tmp_path / "ours")
    with pytest.raises(ValueError, match="too short"):
        read_subject(replace(config, min_frames=2))


def test_smaller_shares_of_the_patients_are_within_larger_ones(videos: Path) -> None:
    subject = read_subject(ComparisonConfig(data=str(videos), labels=("label",), folds=4))
    kept = ~subject.held_out(1)
    assert len(subject.training_patients(1)) == 3
    sizes = []
    inner = np.zeros(8, dtype=bool)
    for share in (0.01, 0.6, 1.0):
        chosen = subject.share_of_patients(1, share, seed=3)
        assert (inner <= chosen).all() and (chosen <= kept).all()
        sizes.append(int(chosen.sum()))
        inner = chosen
    assert sizes == [2, 4, 6]
    assert [number_in_share(28, share) for share in (0.01, 0.05, 0.2, 1.0)] == [1, 1, 6, 28]


def test_an_arm_is_fine_tuned_with_the_labels_of_each_share(videos: Path, tmp_path: Path) -> None:
    options = TINY | {"data": str(videos), "labels": ("label",), "finetune": 2}
    arms = {"random": ARMS["random"], "pixels": {"weights": "pixels"}}
    config = replace(read_config("core", options | {"arms": arms}), primary=())
    bench = Bench(config, read_subject(config))
    for arm, fitted in (("random", {1.0, 0.5}), ("pixels", set())):
        bench.do(Run(0, 1, arm), tmp_path / arm)
        found = RunResult.load(tmp_path / arm).predictions
        tuned = [p for p in found if p.probe == FINETUNED]
        assert {(p.task, p.share) for p in tuned} == set(
            itertools.product(("label", "label of videos"), fitted)
        )
        for p in tuned:
            assert np.allclose(p.probability.sum(1), 1, atol=1e-5)
            linear = next(
                q for q in found if (q.task, q.share, q.probe) == (p.task, p.share, "linear")
            )
            assert np.array_equal(linear.truth, p.truth) and linear.patient == p.patient


def test_fine_tuning_trains_a_copy_and_ends_with_the_steps(videos: Path) -> None:
    options = TINY | {"data": str(videos), "finetune": 3}
    config = replace(read_config("core", options), arms=(), primary=())
    catalog = VideoCatalog.scan(videos)
    truth = {"half": (2, [np.arange(entry.num_frames) // 6 for entry in catalog])}
    encoder = first_encoder(config, 0)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    found = finetune(encoder, config, catalog, truth, seed=0)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert [step for step, _ in found.curve] == [1, 2, 3] and not found.encoder.training
    changed = [not torch.equal(before[n], v) for n, v in found.encoder.state_dict().items()]
    assert sum(changed) > len(changed) / 2


def test_seeds_take_turns_at_the_folds() -> None:
    config = ComparisonConfig(seeds=3, arms=(Arm("a", weights="random"),))
    assert [(r.seed, r.fold) for r in planned(config, (0, 1))] == [(0, 0), (1, 1), (2, 0)]
    every = planned(replace(config, hold_out="all", seeds=2), (0, 1))
    assert [(r.seed, r.fold) for r in every] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_an_arm_of_ours_is_what_train_trains(videos: Path, tmp_path: Path) -> None:
    """The comparison leaves out what watches and saves a run, and nothing else."""
    arm = Arm("ours", **ARMS["ours"])
    config = replace(read_config("core", TINY | {"data": str(videos)}), arms=(), primary=())
    catalog, _ = VideoCatalog.scan(videos).with_folds(2, 0).split([1])
    found = pretrain(arm, config, catalog, {}, seed=5).encoder.state_dict()
    options = training_config(arm, config, 5)
    flat = {
        f"{section}.{name}": value
        for section in ("encoder", "sampling", "loss", "optimiser")
        for name, value in vars(getattr(options, section)).items()
    }
    wanted = {"epochs": 1, "precision": "32-true", "log_every": 2, **flat}
    labels = tmp_path / "data"
    labels.mkdir()
    for entry in catalog:
        (labels / entry.id).symlink_to(entry.path)
    train(data=labels, out=tmp_path / "run", held_out=(), seed=5, progress=False, **wanted)
    trained = load_encoder(tmp_path / "run").state_dict()
    assert found.keys() == trained.keys()
    assert all(torch.equal(found[name], trained[name]) for name in found)


def test_every_method_does_as_many_steps(videos: Path) -> None:
    """An epoch of the paper's method is one step here."""
    options = TINY | {"data": str(videos), "steps": 3}
    config = replace(read_config("core", options), arms=(), primary=())
    catalog, _ = VideoCatalog.scan(videos).with_folds(2, 0).split([1])
    for method in ("dense", "paper"):
        found = pretrain(Arm(method, method=method), config, catalog, {}, seed=5)
        assert [step for step, _ in found.curve] == [1, 2, 3]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("arm", [*OBJECTIVES, "supervised"])
def test_other_methods_train_and_gather_batch_statistics(arm: str, videos: Path) -> None:
    """Lightning trains a module in the mode that it is in."""
    config = read_config("full", TINY | {"data": str(videos), "steps": 1})
    catalog, _ = VideoCatalog.scan(videos).with_folds(2, 0).split([1])
    truth = {"half": (2, [np.arange(entry.num_frames) // 6 for entry in catalog])}
    (chosen,) = [each for each in config.arms if each.name == arm]
    found = pretrain(chosen, config, catalog, truth, seed=5)
    ((step, loss),), encoder = found.curve, found.encoder
    assert step == 1 and np.isfinite(loss) and not encoder.training
    means = [value for name, value in encoder.state_dict().items() if "running_mean" in name]
    assert means and all(mean.any() for mean in means)


def test_a_comparison_is_whole_goes_on_and_grows(videos: Path, tmp_path: Path) -> None:
    base = {"data": videos, "out": tmp_path / "out", "processes": 1, "progress": False, **TINY}
    config = tmp_path / "mine.yaml"
    config.write_text(f"preset: null\narms: {ARMS}\n")
    first = compare(preset=config, arms=["random", "ours"], **base)
    assert not first.failures and not first.missing
    assert {(r.arm, r.seed, r.fold) for r in first.results} == {
        (arm, seed, seed) for arm in ("random", "ours") for seed in (0, 1)
    }
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").rglob("*.json")}
    whole = compare(out=tmp_path / "out", processes=1, progress=False)
    assert {r.arm for r in whole.results} == {"random", "ours", "supervised"}
    assert (
        before.items()
        <= {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "runs").rglob("*.json")}.items()
    )
    by_arm = {r.arm: r for r in whole.results if r.seed == 0}
    asked = {(p.task, p.probe, p.share) for p in by_arm["supervised"].predictions}
    assert {
        ("label of videos", "linear", 1.0),
        ("label", "knn", 0.5),
        ("label", "supervised", 1.0),
    } <= asked
    for predictions in by_arm["ours"].predictions:
        assert np.allclose(predictions.probability.sum(1), 1, atol=1e-5)
        assert len(predictions.truth) == (4 if predictions.level == "video" else 12)
    assert by_arm["ours"].curve and by_arm["ours"].images_per_second > 0
    with pytest.raises(ValueError, match=r"steps must be as in .*, 2, got 4; give another out"):
        compare(out=tmp_path / "out", progress=False, steps=4)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(FileExistsError, match="out must be a new folder or that of a comparison"):
        compare(data=videos, out=tmp_path / "other")


def test_processes_do_not_run_the_script_that_compares() -> None:
    """A script without a guard would start the comparison again in each of them."""
    before = get_preparation_data("a process")
    with without_main():
        inside = get_preparation_data("a process")
    assert not {"init_main_from_name", "init_main_from_path"} & inside.keys()
    assert get_preparation_data("a process") == before


def test_a_run_that_cannot_be_done_does_not_stop_the_others(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("the weights cannot be fetched\nmore")

    config = tmp_path / "mine.yaml"
    arms = {"imagenet": {"weights": "imagenet"}, "pixels": {"weights": "pixels"}}
    config.write_text(f"preset: null\narms: {arms}\n")
    monkeypatch.setattr("usucl.comparison.training.pretraining.pretrain", offline)
    options = {**TINY, "seeds": 1, "labels": ("label",)}
    found = compare(
        data=videos, out=tmp_path / "out", preset=config, processes=1, progress=False, **options
    )
    assert [r.arm for r in found.results] == ["pixels"]
    assert [(f.run.arm, f.reason) for f in found.failures] == [
        ("imagenet", "the weights cannot be fetched")
    ]
    assert found.missing == 1
