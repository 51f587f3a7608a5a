"""What a dry run finds out about time, memory and disk, beside a real run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import BACKBONE, make_data

from usucl._environment import cache_folder
from usucl.cli import main
from usucl.cli.planned import show
from usucl.run_folder import RunFolder
from usucl.training import plan, read_config, train
from usucl.training.planning import Plan, measurement
from usucl.training.planning.measurement import STEPS

OPTIONS: dict[str, Any] = {
    "preset": "paper",
    "backbone": BACKBONE,
    "pretrained": False,
    "image_size": 32,
    "dim": 8,
    "held_out": [],
    "sampling.videos": 3,
    "key.bank": 64,
    "sampling.guard": 0.99,
    "epochs": 2,
    "optimiser.kind": "adamw",
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), videos=6, frames=12)


@pytest.fixture(scope="module")
def measured(videos: Path) -> Plan:
    """A plan of a run that has stored no frame yet."""
    before, state = stored(), torch.get_rng_state()
    torch.set_num_threads(1)
    planned = plan(data=videos, measure=True, progress=False, **OPTIONS)
    assert stored() == before, "only the frames of a few steps are decoded, and none is kept"
    assert torch.equal(torch.get_rng_state(), state)
    return planned


@pytest.fixture(scope="module")
def run(videos: Path, measured: Plan, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("run") / "run"
    return RunFolder(train(data=videos, out=out, progress=False, **OPTIONS | {"epochs": 1}))


def stored() -> int:
    cache = cache_folder()
    assert cache is not None
    return sum(file.is_file() for file in (cache / "frames").rglob("*"))


def test_files_and_memory_are_those_of_the_run(measured: Plan, run: RunFolder) -> None:
    found = measured.needs.measured
    assert found is not None and len(found.steps) == STEPS and min(found.steps) > 0
    weights_files = run.encoder_weights, run.backbone_weights
    assert found.encoder == sum(file.stat().st_size for file in weights_files)
    size = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    assert size == pytest.approx(found.checkpoint + 2 * found.encoder + found.bank, rel=0.02)
    assert found.checkpoint == pytest.approx(run.checkpoint.stat().st_size, rel=0.01)
    assert found.bank == pytest.approx(sum(f.stat().st_size for f in run.bank.iterdir()), rel=0.05)
    state = torch.load(run.checkpoint, weights_only=True)
    weights = [v for name, v in state["state_dict"].items() if name.startswith("encoder.")]
    moments = state["optimizer_states"][0]["state"].values()
    memory = found.memory
    assert memory.weights == memory.momentum_encoder == sum(v.nbytes for v in weights)
    assert memory.optimiser == sum(v.nbytes for moment in moments for v in moment.values())
    assert memory.bank == sum(v.nbytes for v in state["bank"].values())
    images = 3 * (1 + 1 + 3)
    assert memory.batch == pytest.approx(images * 3 * 32 * 32 * 4, rel=0.01)
    assert memory.activations > memory.batch and memory.peak > memory.activations


def test_what_is_not_measured_follows_from_the_options(videos: Path, measured: Plan) -> None:
    planned = plan(data=videos, progress=False, **OPTIONS)
    told, truth = planned.needs.memory, measured.needs.memory
    for name in ("weights", "gradients", "optimiser", "momentum_encoder", "bank", "batch"):
        assert getattr(told, name) == pytest.approx(getattr(truth, name), rel=0.05), name
    rows = dict(planned.needs.rows())
    assert rows["time"] == "not measured" and "activations are known once" in str(rows)


def test_slow_steps_end_the_measurement(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "PATIENCE", 0.0)
    slow = OPTIONS | {"optimiser.accumulate": 8, "sampling.guard": None}
    found = plan(data=videos, measure=True, progress=False, **slow).needs.measured
    assert found is not None and len(found.steps) == 1


def test_ranges_hold_what_was_measured(measured: Plan) -> None:
    found = measured.needs.measured
    assert found is not None
    known = replace(found, steps=(1.0, 2.0), batches=(0.5,), frame=0.1, save=3.0)
    needs = replace(measured.needs, measured=known, steps_left=4)
    assert needs.step_seconds() == pytest.approx((0.9 * 1.5, 1.1 * 2.5))
    config = needs.config
    workers = replace(config, sampling=replace(config.sampling, num_workers=2))
    with_workers = replace(needs, config=workers, measured=replace(known, batches=(4.0,)))
    assert with_workers.step_seconds() == pytest.approx((0.9 * 2.0, 1.1 * 6.0))
    assert "2 x " in dict(with_workers.rows())["memory of workers"]
    two = replace(config, running=replace(config.running, devices=2))
    assert replace(needs, config=two).step_seconds() == pytest.approx((0.45 * 1.5, 1.1 * 2.5))
    assert "shared by 2 processes" in dict(replace(needs, config=two).rows())["time per step"]
    lo, hi = needs.decoding_seconds()
    assert hi in (0, pytest.approx(0.1 * 72)) and lo <= hi  # 72 frames, unless they are stored
    rows = dict(needs.rows())
    assert rows["time per epoch"].startswith("5.7 to 8.5 s, of which 3 s to write")


def test_what_is_left_of_a_run(
    videos: Path, run: RunFolder, measured: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f: os.stat(f).st_mtime_ns for f in run.path.rglob("*")}
    words = ["train", str(videos), "--out", str(run.path), "--resume", "--dry-run"]
    assert main([*words, "--no-measure", "--set", "epochs=3"]) == 0
    assert "2 per epoch, 6 in 3 epochs; 2 are done, 4 are left" in capsys.readouterr().out
    assert main(words) == 0  # of a finished run, no step is measured
    assert "2 are done, 0 are left" in capsys.readouterr().out
    assert {f: os.stat(f).st_mtime_ns for f in run.path.rglob("*")} == files
    assert read_config(run.config, {}).epochs == 1
    show(measured)
    printed = capsys.readouterr().out
    for name in ("memory", "disk, run folder", "time per step", "time in all"):
        assert name in printed
