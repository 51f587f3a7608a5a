"""No step does nothing in silence: warnings, their table, and an error where all was in vain."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import BACKBONE, make_data
from torch.nn.functional import normalize

from usucl._files import read_json
from usucl.cli import main
from usucl.losses import Frames, LossInputs, Selection
from usucl.models import load_encoder
from usucl.training import NothingLearnedError, read_config, train
from usucl.training.callbacks.health import EpochFindings, Health, judge

TINY: dict[str, Any] = {
    "backbone": BACKBONE,
    "image_size": 32,
    "dim": 8,
    "sampling.videos": 2,
    "sampling.frames": 2,
    "steps_per_epoch": 2,
    "epochs": 1,
    "log_every": 1,
}
UNIT = normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)))


def step(
    z: torch.Tensor = UNIT, loss: float = 1.0, intra: int = 0, cross: int = 0, same: bool = False
) -> Any:
    """A step whose anchors have the negatives of these indices; -1 for none."""
    rows = torch.arange(4)
    positives = z if same else z.roll(1, 0)
    index = [torch.full((4, 2), intra), torch.full((4, 3), cross)]
    selection = Selection(index[0], torch.zeros(4, 2), index[1], torch.zeros(4, 3))
    inputs = LossInputs(Frames(z, rows, rows.float()), positives, (), torch.zeros(4, 2))
    return {"loss": torch.tensor(loss), "inputs": inputs, "selection": selection}


def findings(*steps: Any, gradient: bool = True, moved: bool = True, **more: Any) -> list[str]:
    """The kinds of what is told of an epoch."""
    found = EpochFindings()
    found.gradient = gradient
    for name, value in more.items():
        setattr(found, name, value)
    for output in steps:
        found.add(output)
    config = read_config("dense", {"epochs": 20})
    return [*judge(config, 10, found, found.counts(), moved)]


@pytest.mark.parametrize(
    ("kinds", "epoch"),
    [
        ([], lambda: findings(step(), step(loss=0.0))),
        (["no negatives"], lambda: findings(step(intra=-1, cross=-1, loss=0.0), gradient=False)),
        (["zero loss"], lambda: findings(step(loss=0.0), step(loss=0.0), gradient=False)),
        (["no gradient"], lambda: findings(step(), gradient=False, moved=False)),
        (["no movement"], lambda: findings(step(), moved=False)),
        (["no cross-video negatives"], lambda: findings(step(cross=-1))),
        (["no intra-video negatives"], lambda: findings(step(intra=-1))),
        (["identical positives"], lambda: findings(step(same=True))),
        (["not normalised"], lambda: findings(step(z=3 * UNIT))),
        (["not normalised"], lambda: findings(step(z=0 * UNIT))),
        (["same batches"], lambda: findings(step(), same_batch=True)),
    ],
)
def test_what_is_told_of_an_epoch(kinds: list[str], epoch: Any) -> None:
    assert epoch() == kinds


def test_few_negatives_are_told() -> None:
    output = step(loss=0.1)
    for index in (output["selection"].intra_index, output["selection"].cross_index):
        index[1:] = -1
    outputs = [step(intra=-1, cross=-1, loss=0.0)] * 3 + [output]
    assert findings(*outputs) == ["few negatives"]


def test_a_constant_loss_is_told_once(tmp_path: Path) -> None:
    health = Health(tmp_path / "warnings.csv")
    health.table.rewind(0)
    with pytest.warns(UserWarning, match="the loss was exactly 2.5 in each of 4 steps"):
        for _ in range(2):
            health._losses = [torch.tensor(2.5)] * 4
            health._tell_constant(8, zero=False)
    assert len(rows(tmp_path / "warnings.csv")) == 1
    health.table.rewind(7)
    assert rows(tmp_path / "warnings.csv") == []


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, of which one is held out."""
    return make_data(tmp_path_factory.mktemp("data"), videos=2, frames=4, labels=False)


@pytest.mark.usefixtures("one_thread")
def test_a_command_in_vain_fails_and_says_what_to_change(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    sets = [f"{name}={value}" for name, value in TINY.items()]
    assert main(["train", str(pair), "--out", str(out), "--no-progress", "--set", *sets]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("usucl: error: nothing was learned: no anchor ever had a negative")
    assert "held_out=()" in told[-1] and "curriculum.cross_only=0" in told[-1]
    (row,) = rows(out / "warnings.csv")
    assert row["step"] == "2" and row["warning"].startswith("no anchor had a negative in epoch 1")
    assert f"usucl: warning: {row['warning']}" in told
    facts = read_json(out / "run.json")
    assert facts["epochs_done"] == 1 and facts["finished"] and facts["device"] == "cpu"
    assert facts["command"].startswith("usucl train ") and facts["versions"]["torch"]
    load_encoder(out)


@pytest.mark.usefixtures("one_thread")
def test_a_good_run_tells_nothing_and_one_without_a_rate_fails(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", videos=6, frames=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = train(data=data, out=tmp_path / "run", **TINY, progress=False)
    assert rows(out / "warnings.csv") == []
    assert read_json(out / "run.json")["command"] == "Python"
    with (
        pytest.warns(UserWarning, match="the weights did not change in epoch 1"),
        pytest.raises(NothingLearnedError, match="weights are those of the start; give a greater"),
    ):
        train(data=data, out=tmp_path / "still", **TINY, lr=0, progress=False)
