"""A run that ends in any way goes on as if it had not: signals, disks, data, losses; and alarms."""

from __future__ import annotations

import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import BACKBONE, make_data

from tests.soak.faults.differences import differences
from usucl._files import read_json, read_tensors
from usucl.cli import main
from usucl.data import VideoError
from usucl.models import load_encoder
from usucl.run_folder import RunFolder
from usucl.training import read_config, train
from usucl.training.callbacks import saving
from usucl.training.callbacks.contraction import past_limits
from usucl.training.callbacks.finite import FiniteLoss
from usucl.training.callbacks.monitor import Monitor
from usucl.training.callbacks.saving import save_best
from usucl.training.callbacks.stopping import Stopped, Stopping
from usucl.training.checkpoint import read_checkpoint
from usucl.training.module import ContrastiveTraining
from usucl.training.options import SavingConfig

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS: dict[str, Any] = {
    "backbone": BACKBONE,
    "image_size": 32,
    "dim": 8,
    "epochs": 2,
    "sampling.videos": 2,
    "sampling.frames": 3,
    "steps_per_epoch": 3,
    "bank": 16,
    "key.momentum": 0.9,
    "log_every": 1,
    "cross_only": 0.0,
    "curriculum.kind": "hardness",
    "sampling.guard": 0.99,
    "cache_gb": 0,
    "progress": False,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), videos=6, frames=6)


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted; do not change it."""
    torch.set_num_threads(1)
    return train(data=videos, out=tmp_path_factory.mktemp("runs") / "whole", **OPTIONS)


def step_of(run: Path) -> int:
    return int(read_checkpoint(RunFolder(run).checkpoint)["global_step"])


@pytest.mark.parametrize(
    ("signum", "where", "step", "workers"),
    [
        (signal.SIGTERM, (FiniteLoss, "on_train_batch_end"), 2, 1),  # in a step
        (signal.SIGINT, (Monitor, "on_train_epoch_end"), 3, 0),  # in a callback between epochs
    ],
    ids=["SIGTERM in a step", "Ctrl-C between epochs"],
)
def test_a_signal_saves_the_last_step_and_the_run_goes_on_to_the_bit(
    signum: signal.Signals,
    where: tuple[type, str],
    step: int,
    workers: int,
    videos: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler, hook = signal.getsignal(signum), getattr(*where)
    after = []

    def send(self: Any, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == step:
            os.kill(os.getpid(), signum)
            after.append(step)
        hook(self, trainer, *rest)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(*where, send)
        with pytest.raises(KeyboardInterrupt if signum == signal.SIGINT else SystemExit) as stop:
            train(data=videos, out=out, **OPTIONS, num_workers=workers)
    assert signal.getsignal(signum) is handler
    assert step_of(out) == step == read_json(out / "run.json")["steps_done"]
    assert bool(after) == (signum == signal.SIGTERM)  # between steps, it does not even go on
    if signum == signal.SIGTERM:
        assert isinstance(stop.value, SystemExit) and stop.value.code == 143
    assert read_json(out / "run.json")["epochs_done"] == 0
    # The same call goes on; what does not change the encoder may change.
    train(data=videos, out=out, resume=True, **OPTIONS, num_workers=workers, checkpoint_every=1)
    assert f"The run goes on after step {step}, within epoch 1" in capsys.readouterr().err
    assert differences(out, whole) == []
    assert read_config(out / "config.yaml", {}).saving.checkpoint_every == 1


def test_a_second_signal_is_not_the_first_delivered_twice(monkeypatch: Any) -> None:
    stopping, killed, now = Stopping(), [], [10.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("os.kill", lambda *what: killed.append(what))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for moment in (10.0, 10.5):
        now[0] = moment
        stopping._handle(signal.SIGTERM, None)
    assert killed == []
    with pytest.raises(Stopped):
        stopping.check()
    now[0] = 12.0
    stopping._handle(signal.SIGTERM, None)
    assert killed == [(os.getpid(), signal.SIGTERM)]


def test_vanished_videos_and_a_full_disk_keep_the_last_checkpoint(
    videos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = shutil.copytree(videos, tmp_path / "data"), tmp_path / "run"
    hook, saved = Monitor.on_train_batch_end, torch.save

    def vanish(self: Monitor, trainer: Any, *rest: Any) -> None:
        hook(self, trainer, *rest)
        if trainer.global_step == 2:
            data.rename(tmp_path / "elsewhere")

    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "on_train_batch_end", vanish)
        with pytest.raises(VideoError, match=r"video_\d.*the last checkpoint is kept in .*resume"):
            train(data=data, out=out, **OPTIONS, checkpoint_every=1)
    assert step_of(out) == 2
    with pytest.raises(ValueError, match="must be a folder of videos"):
        train(out=out, resume=True, progress=False)
    (tmp_path / "elsewhere").rename(data)

    def full(checkpoint: Any, file: Any) -> None:
        saved(checkpoint, file)
        if checkpoint["global_step"] == 5:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match=r"No space left on device: .*last\.ckpt"):
            train(out=out, resume=True, progress=False)
    assert step_of(out) == 4
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["last.ckpt"]
    (out / "checkpoints" / f".last.ckpt.{2**22 + 1}.tmp").write_bytes(b"of a killed process")
    train(out=out, resume=True, progress=False)
    assert differences(out, whole) == []


@pytest.mark.parametrize("bank", [0, 16])
def test_a_loss_that_is_not_finite_keeps_its_batch(bank: int, videos: Path, tmp_path: Path) -> None:
    """With a bank, which takes no such embeddings, there is not even a loss."""
    out = tmp_path / "run"
    said = r"got nan at step 2 \(epoch 1, batch 2\), with frames of video_\d \(\d, \d, \d\)"
    with pytest.raises(ValueError, match=said) as raised:
        train(data=videos, out=out, **{**OPTIONS, "lr": 1e30, "bank": bank}, checkpoint_every=1)
    there_is_one = RunFolder(out).checkpoint.exists()
    assert ("the last checkpoint before it is kept" in str(raised.value)) == there_is_one
    tensors, facts = read_tensors(RunFolder(out).failed_batch)
    assert (facts["step"], facts["epoch"], facts["loss"]) == ("2", "0", '"nan"')
    assert (
        len(tensors["anchor_view"]) == len(tensors["frame"]) == 6 and "video_" in facts["video_ids"]
    )
    assert not (out / "checkpoints").exists() or step_of(out) == 1


def test_resume_starts_a_run_where_there_is_none(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(FileNotFoundError, match=r"nothing to resume: .*other is not empty"):
        train(data=videos, out=other, resume=True, **OPTIONS)
    with pytest.raises(TypeError, match="data must be a folder"):
        train(out=tmp_path / "run", resume=True)
    first = {**OPTIONS, "epochs": 1, "steps_per_epoch": 1}
    train(data=videos, out=tmp_path / "run", resume=True, **first)
    assert "holds no run yet: a new one starts" in capsys.readouterr().err
    train(data=videos, out=tmp_path / "run", resume=True, **first)
    assert "is finished" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"seed cannot change .*only options of .*saving"):
        train(data=videos, out=tmp_path / "run", resume=True, **first, seed=1)


def test_a_run_that_was_being_replaced_comes_back(
    videos: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new one is killed before its first checkpoint; a dry run knows it, and moves nothing."""
    run = RunFolder(shutil.copytree(whole, tmp_path / "run"))
    run.set_aside()
    run.write_config("seed: 9\n")
    there = sorted(path.name for path in run.path.iterdir())
    words = ["train", str(videos), "--out", str(run.path), "--resume"]
    assert main([*words, "--dry-run", "--no-measure"]) == 0
    assert "6 are done, 0 are left" in capsys.readouterr().out
    assert sorted(path.name for path in run.path.iterdir()) == there
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "has its earlier run back" in said and "is finished" in said
    assert differences(run.path, whole) == []
    assert main([*words[:3], str(tmp_path / "new"), *words[4:], "--dry-run", "--no-measure"]) == 0
    assert "holds no run yet: a new one starts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "seconds", "steps"),
    [
        (None, None, None),
        (3, None, 3),
        ("90 s", 90, None),
        ("1.5h", 5400, None),
        ("2 min", 120, None),
    ],
)
def test_checkpoints_are_every_so_many_steps_or_so_long(
    given: Any, seconds: float | None, steps: int | None
) -> None:
    config = SavingConfig(given)
    assert (config.seconds, config.steps) == (seconds, steps)


@pytest.mark.parametrize("given", [0, -1, True, "0 s", "10", "ten minutes", "1 day", ""])
def test_other_intervals_are_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"saving\.checkpoint_every must be .* got"):
        SavingConfig(given)


HEALTHY = {"step": 1, "effective_rank": 40.0, "uniformity": -3.2}


@pytest.mark.parametrize(
    ("row", "higher", "kinds"),
    [
        ({}, 0.05, []),
        ({}, math.nan, []),
        ({"effective_rank": 3.0}, -0.1, ["collapsing"]),
        ({"uniformity": -0.2}, -0.1, ["collapsing"]),
        ({}, 0.2, ["negatives above positives"]),
    ],
)
def test_what_is_past_its_limit(row: dict[str, float], higher: float, kinds: list[str]) -> None:
    assert [*past_limits({**HEALTHY, **row}, 64, higher)] == kinds


def test_the_best_encoder_is_not_later_than_its_checkpoint(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed between the two does the end of the epoch again, and the best one."""
    order, save = [], torch.save
    monkeypatch.setattr(saving, "save_best", lambda *_: order.append("best"))
    monkeypatch.setattr(torch, "save", lambda *args: (order.append("checkpoint"), save(*args)))
    options = {**OPTIONS, "epochs": 1, "steps_per_epoch": 1}
    train(data=videos, out=tmp_path / "run", **options, probe_every=1)
    assert order == ["best", "checkpoint"]


def test_the_best_encoder_is_kept(whole: Path, tmp_path: Path) -> None:
    encoder, run = load_encoder(whole), RunFolder(tmp_path)
    values = (0.5, 0.4, math.nan, 0.5, 0.6)
    saved = [save_best(run, encoder, "probe", value, {"step": 1}) for value in values]
    assert saved == [True, False, False, False, True]
    assert read_json(run.best_facts) == {"metric": "probe", "value": 0.6, "step": 1}
    load_encoder(run.best)


def test_weights_in_float64_are_not_rounded_when_they_are_restored() -> None:
    options = {"backbone": "resnet10", "image_size": 32, "precision": "64-true"}
    module = ContrastiveTraining(read_config("dense", options), restored=True)
    state = {name: value.double() / 3 for name, value in module.state_dict().items()}
    module.on_load_checkpoint({})
    module.load_state_dict(state)
    weight = module.encoder.get_parameter("backbone.conv1.weight")
    assert torch.equal(weight, state["encoder.backbone.conv1.weight"])
