"""Processes that train together: as one in float64, from end to end, and when one is lost."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import run_ranks
from lightning.pytorch.callbacks import Checkpoint
from runs import make_data
from torch import Tensor, nn

from usucl.data import VideoCatalog
from usucl.models import MomentumEncoder
from usucl.run_folder import RunFolder
from usucl.training import read_config, train
from usucl.training.fitting import make_datamodule
from usucl.training.module import ContrastiveTraining
from usucl.training.processes.together import joined
from usucl.training.processes.world import World
from usucl.training.trainer import make_trainer

STEPS = 20
WITHIN = 1e-10  # of the greatest number: rounding in float64, over all steps
SMALL = {"backbone": "resnet10", "image_size": 32, "dim": 8, "pretrained": False, "videos": 5}
IN_FLOAT64 = {
    **SMALL,
    "precision": "64-true",
    "optimiser.kind": "sgd",
    "optimiser.lr": 0.1,
    "optimiser.momentum": 0.9,
    "curriculum.cross_only": 0.1,
    "augmentation": "crop",
}
DENSE = {"epochs": 4, "frames": 2, "steps_per_epoch": 5, "cross_k": 4}
PAPER = {"epochs": 10, "key.momentum": 0.9}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("dense", DENSE),
    "dense, bank": ("dense", {**DENSE, "bank": 50, "max_age": 30}),
    "dense, sharded": ("dense", {**DENSE, "bank": 50, "sharded": True, "max_age": 40}),
    "paper, sharded, less than a batch": ("paper", {**PAPER, "bank": 4, "sharded": True}),
    "paper-code": ("paper-code", PAPER),
}


class SmallEncoder(nn.Sequential):
    """A network without statistics over the batch, for which the order of images is nothing."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 5, stride=4),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 8),
        )

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(super().forward(images), dim=1)


class Recorder(Checkpoint):
    """Keeps the gradients of every step, its loss, and the bank after it, in place of files."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.banks: list[dict[str, Tensor]] = []

    def found(self) -> dict[str, Any]:
        return {"gradients": self.gradients, "losses": self.losses, "banks": self.banks}

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        grads = [p.grad for p in module.encoder.parameters()]
        self.gradients.append(torch.cat([grad.flatten() for grad in grads]).clone())

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(outputs["loss"].detach().clone())
        if module.bank is not None:
            self.banks.append(module.bank.state_dict())


def fit(folder: Path, case: str, world: World) -> Recorder:
    preset, options = CASES[case]
    config = read_config(preset, {"data": str(folder / "data"), **IN_FLOAT64, **options})
    torch.manual_seed(0)
    module = ContrastiveTraining(config)
    module.encoder = SmallEncoder()  # type: ignore[assignment]
    if module.method.momentum is not None:
        module.momentum_encoder = MomentumEncoder(module.encoder, module.method.momentum)
    datamodule = make_datamodule(VideoCatalog.scan(config.data), config)
    recorder = Recorder()
    trainer = make_trainer(RunFolder(folder / "run"), config, [recorder], [], world)
    trainer.fit(module, datamodule=datamodule)
    return recorder


def fit_together(rank: int, folder: Path, size: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank))
    os.environ.update(WORLD_SIZE=str(size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size))
    world = World.here()
    with joined(world) as together:
        running = read_config("dense", {}).running
        together.of_first(lambda: None, lambda _: running)
        recorders = {case: fit(folder, case, world) for case in CASES}
    if world.is_first:
        torch.save({case: r.found() for case, r in recorders.items()}, folder / f"{size}.pt")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What one, two and three processes recorded, by their number and case."""
    folder = tmp_path_factory.mktemp("processes")
    make_data(folder / "data", videos=10, frames=12)
    for size in (2, 3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        run_ranks(fit_together, (folder, size, port), size)
    found = {size: torch.load(folder / f"{size}.pt", weights_only=True) for size in (2, 3)}
    return {1: {case: fit(folder, case, World()).found() for case in CASES}, **found}


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(
        found,
        expected,
        rtol=0,
        atol=WITHIN * float(expected.nan_to_num().abs().max()),
        equal_nan=True,
    )


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_processes_train_as_one(recorded: dict[int, dict[str, Any]], case: str, size: int) -> None:
    """Five videos on two or three processes are unequal shares, and no bank is divisible by all."""
    found, one = recorded[size][case], recorded[1][case]
    assert len(one["gradients"]) == len(found["gradients"]) == STEPS
    assert all(float(gradient.abs().max()) > 0 for gradient in one["gradients"])
    for ours, theirs in zip(found["gradients"], one["gradients"], strict=True):
        assert ours.dtype == torch.float64
        assert_near(ours, theirs)
    assert_near(torch.stack(found["losses"]), torch.stack(one["losses"]))
    assert len(found["banks"]) == (STEPS if "bank" in CASES[case][1] else 0)
    for state, expected in zip(found["banks"], one["banks"], strict=True):
        assert state.keys() == expected.keys()
        for name, column in state.items():
            if name == "embedding":
                assert_near(column, expected[name])
            else:
                torch.testing.assert_close(column, expected[name], rtol=0, atol=0, equal_nan=True)


TINY = {**SMALL, "frames": 2, "steps_per_epoch": 2, "epochs": 1, "precision": "64-true"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), videos=8, frames=6)


@pytest.mark.parametrize(
    ("environment", "world"),
    [
        ({}, World()),
        ({"RANK": "0", "WORLD_SIZE": "1"}, World()),
        (
            {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
            World(3, 4, 1, 2, "torchrun"),
        ),
        (
            {
                "SLURM_STEP_NUM_TASKS": "4",
                "SLURM_STEP_NUM_NODES": "2",
                "SLURM_PROCID": "2",
                "SLURM_LOCALID": "0",
            },
            World(2, 4, 0, 2, "srun"),
        ),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, World()),  # a batch script without srun
    ],
)
def test_a_process_knows_its_place(
    environment: dict[str, str], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert World.here() == world


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "2"}, {}, r"must be started by .* torchrun or srun, got 2 .*mpi"),
        ({"WORLD_SIZE": "2"}, {}, "RANK must be in the environment beside WORLD_SIZE 2"),
        ({"SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NUM_NODES": "2"}, {}, "as many processes on ev"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, {}, "MASTER_ADDR must be in the environment"),
        ({}, {"devices": 6}, r"running\.devices must be at most 5, the number of videos in the sm"),
        ({}, {"devices": 0}, r"running\.devices must be in \[1, 65536\], got 0"),
        ({}, {"nodes": 2}, r"running\.nodes must be 1 unless torchrun or srun starts"),
        ({}, {"accelerator": "tpu"}, r"running\.accelerator must be one of auto, cpu, gpu"),
        ({}, {"timeout": 0.0}, r"running\.timeout must be in \(0, "),
        ({}, {"devices": 3, "bank": 2, "sharded": True}, r"key\.bank must hold a frame for each o"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    environment: dict[str, str],
    options: dict[str, Any],
    message: str,
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises((RuntimeError, ValueError), match=message):
        train(data=videos, out=tmp_path / "run", held_out=(), progress=False, **TINY, **options)
    assert not (tmp_path / "run").exists()


def test_options_and_starter_must_agree() -> None:
    running = read_config("dense", {"devices": 2, "nodes": 2}).running
    World(0, 4, 0, 2, "torchrun").check(running)
    with pytest.raises(ValueError, match=r"that torchrun has started, 3, or both 1, got 2 x 2"):
        World(0, 3, 0, 3, "torchrun").check(running)
