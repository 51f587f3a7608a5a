"""What may go on, and how: added epochs, runs without a finished epoch, other runs' checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import BACKBONE, make_data

from usucl._files import read_json
from usucl.models import load_encoder
from usucl.run_folder import RunFolder
from usucl.training import read_config, train
from usucl.training.callbacks.health import Health
from usucl.training.optimisation.schedule import HalfCosines

pytestmark = pytest.mark.usefixtures("one_thread")

TINY: dict[str, Any] = {
    "backbone": BACKBONE,
    "image_size": 32,
    "dim": 8,
    "sampling.videos": 2,
    "sampling.frames": 2,
    "steps_per_epoch": 2,
    "log_every": 1,
    "progress": False,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), videos=6, frames=4)


@pytest.fixture(scope="module")
def finished(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch; copy it before changing it."""
    torch.set_num_threads(1)
    return train(data=videos, out=tmp_path_factory.mktemp("runs") / "run", epochs=1, **TINY)


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_added_epochs_are_as_if_they_had_been_planned(
    out: Path, videos: Path, tmp_path: Path
) -> None:
    started = read_json(out / "run.json")
    train(data=videos, out=out, resume=True, epochs=2, progress=False)
    config = read_config(out / "config.yaml", {})
    assert (config.epochs, config.extended, config.curriculum.epochs) == (2, (1,), 1)
    whole = train(data=videos, out=tmp_path / "whole", preset=out / "config.yaml", progress=False)
    ours, theirs = tensors(out), tensors(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)
    facts = read_json(out / "run.json")
    assert (facts["epochs_done"], facts["steps_done"], len(facts["resumed"])) == (2, 4, 1)
    assert facts["started"] == started["started"] and facts["seconds"] > started["seconds"]
    with pytest.raises(ValueError, match=r"epochs cannot change to fewer .* got 1 after 2"):
        train(data=videos, out=out, resume=True, epochs=1, progress=False)


def test_a_finished_run_says_so_at_once(
    out: Path, videos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("usucl.data.VideoCatalog.scan", pytest.fail)
    assert train(data=videos, out=out, resume=True, epochs=1, progress=False) == out
    assert "is finished: all of its 1 epochs are done" in capsys.readouterr().err


def rates(ends: list[int], steps: int, from_step: int = 0) -> list[float]:
    """The learning rate of each step, with a state saved and loaded at ``from_step``."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule, seen = HalfCosines(optimiser, ends), []
    for step in range(steps):
        if step == from_step > 0:
            states = schedule.state_dict(), optimiser.state_dict()
            schedule = HalfCosines(optimiser, [*ends, 2 * ends[-1]])
            schedule.load_state_dict(states[0])
            optimiser.load_state_dict(states[1])
            schedule.resume()
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return seen


def test_one_half_cosine_is_pytorchs_and_others_begin_again() -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    expected, schedule = [], torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=6)
    for _ in range(6):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates([6], 6) == expected
    two = rates([6, 12], 12)
    assert two[:6] == expected and two[6] == 0.5 and two[6:] == sorted(two[6:], reverse=True)
    assert two[6:] == pytest.approx(expected)
    assert rates([6], 12, from_step=6) == two == rates([6], 12, from_step=3)


def test_a_run_without_a_finished_epoch_begins_again(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "run"

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Health, "on_train_epoch_end", stop)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                train(data=videos, out=out, epochs=1, **TINY)
        facts = read_json(out / "run.json")
        assert (facts["epochs_done"], facts["steps_done"], facts["finished"]) == (0, 0, None)
    train(out=out, resume=True, progress=False)
    assert "has no checkpoint yet: its run begins again" in capsys.readouterr().err
    assert read_json(out / "run.json")["epochs_done"] == 1
    with pytest.raises(FileExistsError, match="holds a run"):
        train(data=videos, out=out, epochs=1, **TINY)
    shutil.rmtree(out / "checkpoints")  # to save space: the encoder is trained
    with pytest.raises(FileExistsError, match="holds a run"):
        train(data=videos, out=out, epochs=1, **TINY)
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        train(out=out, resume=True, progress=False)


def test_a_run_that_fails_before_its_first_step_leaves_nothing(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("usucl.training.fitting.save_encoder", full)
    with pytest.raises(OSError, match="No space left"):
        train(data=videos, out=tmp_path / "run", epochs=1, **TINY)
    assert not (tmp_path / "run").exists()


def test_only_its_own_checkpoint_resumes_a_run(out: Path, finished: Path) -> None:
    run = RunFolder(out)
    config = read_config(run.config, {}).to_yaml()
    assert run.id == RunFolder(finished).id is not None
    for other in ("f" * 32, None):  # another run, or one of an earlier version
        run.write_config(config, other)
        for change in ({}, {"epochs": 2}):
            with pytest.raises(ValueError, match=r"last\.ckpt must be .* run in .*/run: put this"):
                train(out=out, resume=True, progress=False, **change)
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    del checkpoint["run"], checkpoint["callbacks"]  # of an earlier version, like the config
    torch.save(checkpoint, run.checkpoint)
    run.facts.unlink()
    train(out=out, resume=True, progress=False, epochs=2)
    facts = read_json(run.facts)
    assert run.id is None and facts["epochs_done"] == 2 and facts["started"]


def test_an_encoder_starts_from_the_weights_of_a_run(
    out: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = out
    out = train(data=videos, out=tmp_path / "b", epochs=1, **TINY, weights=first)
    assert "The encoder starts from" in capsys.readouterr().err
    start, trained = load_encoder(out / "initial"), load_encoder(first)
    assert all(
        torch.equal(x, y) for x, y in zip(start.parameters(), trained.parameters(), strict=True)
    )
    assert start.config.weights == str(first)
    assert read_config(out / "config.yaml", {}).encoder.weights == str(first)
    facts = read_json(out / "run.json")["start"]
    assert facts["file"] == str(first / "encoder.safetensors") and facts["head"] > 0
    shutil.rmtree(first)
    train(out=out, resume=True, progress=False, epochs=2)
    load_encoder(out)
    with pytest.raises(FileNotFoundError, match=r"encoder\.weights must be a file or the folder"):
        train(data=videos, out=tmp_path / "c", weights=first, **TINY)
    assert not (tmp_path / "c").exists()
