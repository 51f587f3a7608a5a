"""The optimiser: warm-up, LARS, what is decayed, clipping, and accumulated gradients."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from runs import BACKBONE, make_data
from torch import Tensor, nn

from usucl.training import TrainingConfig, read_config, train
from usucl.training.module import ContrastiveTraining
from usucl.training.optimisation.lars import LARS
from usucl.training.optimisation.optimiser import make_optimiser
from usucl.training.optimisation.schedule import HalfCosines
from usucl.training.options import OptimiserConfig
from usucl.training.trainer import Callbacks


def rates(ends: list[int], warmup: int, steps: int, stop: int = 0) -> list[float]:
    """The learning rate of each step, saved at ``stop`` and loaded into one with another end."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule, seen = HalfCosines(optimiser, ends, warmup), []
    for step in range(steps):
        if step == stop > 0:
            states = schedule.state_dict(), optimiser.state_dict()
            assert not {"ends", "warmup"} & set(states[0])
            schedule = HalfCosines(optimiser, [*ends, 2 * ends[-1]], warmup)
            schedule.load_state_dict(states[0])
            optimiser.load_state_dict(states[1])
            schedule.resume()
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return seen


def test_a_warm_up_is_a_line_from_0_before_the_half_cosine() -> None:
    cosine = [0.25 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert rates([10], 4, 10) == pytest.approx([0, 0.125, 0.25, 0.375, *cosine])
    again = [0.25 * (1 + math.cos(math.pi * step / 10)) for step in range(10)]
    whole = rates([10, 20], 4, 20)
    assert whole == pytest.approx([0, 0.125, 0.25, 0.375, *cosine, *again])
    assert rates([10], 4, 20, stop=2) == rates([10], 4, 20, stop=7) == whole
    assert rates([10], 4, 20, stop=10) == whole


def test_impossible_options_are_refused() -> None:
    for option, value, message in (
        ("warmup", -1, "optimiser.warmup must be finite and >= 0, got -1"),
        ("warmup", 50, "optimiser.warmup must be less than the run's 50 epochs"),
        ("clip", 0, "optimiser.clip must be .*> 0"),
        ("clip", math.inf, "optimiser.clip must be finite and > 0"),
        ("trust", 0, "optimiser.trust must be .*> 0"),
        ("accumulate", 0, r"optimiser.accumulate must be in \[1, 65536\], got 0"),
        ("accumulate", 1.5, "optimiser.accumulate must be an integer, got 1.5"),
        ("optimiser.kind", "lamb", "optimiser.kind must be one of sgd, adamw, lars, got 'lamb'"),
        ("matmul_precision", "low", "computing.matmul_precision must be one of highest, high, med"),
        ("compile", "fast", "computing.compile must be true or false, got 'fast'"),
    ):
        with pytest.raises(ValueError, match=message):
            read_config("dense", {option: value})


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def give_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_lars_is_the_algorithm_of_its_paper(tmp_path: Path) -> None:
    config = OptimiserConfig(kind="lars", lr=0.4, momentum=0.9, trust=0.02, weight_decay=0.1)
    model = network()
    optimiser = make_optimiser(model, config)
    expected = [parameter.detach().clone() for parameter in model.parameters()]
    velocity = [torch.zeros_like(weight) for weight in expected]
    for step, lr in enumerate((0.4, 0.4, 0.1, 0.1)):
        if step == 2:  # a new optimiser goes on from the state, which any file may hold
            torch.save(optimiser.state_dict(), tmp_path / "state")
            optimiser = make_optimiser(model, config)
            optimiser.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
        for group in optimiser.param_groups:
            group["lr"] = lr
        give_gradients(model, step)
        for number, parameter in enumerate(model.parameters()):
            weight, gradient, rate, decay = expected[number], parameter.grad, lr, 0.0
            assert gradient is not None
            if weight.dim() > 1:  # neither biases nor normalisation
                decay = 0.1
                rate *= 0.02 * weight.norm() / (gradient.norm() + decay * weight.norm())
            velocity[number] = 0.9 * velocity[number] + rate * (gradient + decay * weight)
            expected[number] = weight - velocity[number]
        optimiser.step()
        for parameter, weight in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.detach(), weight, rtol=1e-5, atol=1e-7)


def test_lars_moves_what_is_0_by_the_learning_rate_alone() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    optimiser = LARS([weight], lr=0.5, weight_decay=0.1)
    assert optimiser.step(lambda: 3.0) == 3.0 and torch.equal(weight, torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    optimiser.step()
    assert torch.equal(weight, torch.full((2, 2), -0.5))
    weight.grad = torch.zeros(2, 2)
    optimiser.step()
    assert weight.isfinite().all()


@pytest.mark.parametrize("kind", ["sgd", "adamw", "lars"])
def test_what_is_decayed(kind: Any) -> None:
    moved = {}
    for decay in (None, True, False):
        model = network()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(1.0)
        options = OptimiserConfig(kind=kind, lr=0.1, weight_decay=0.5, decay_norms=decay)
        optimiser = make_optimiser(model, options)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimiser.step()
        moved[decay] = [bool((p != 1).all()) for p in model.parameters()]
    weights = [p.dim() > 1 for p in network().parameters()]
    assert moved[True] == [True] * 6 and moved[False] == weights
    assert moved[None] == (weights if kind == "lars" else [True] * 6)


SMALL: dict[str, Any] = {
    "preset": "paper-code",
    "epochs": 2,
    "backbone": "resnet10",
    "image_size": 32,
    "dim": 8,
    "pretrained": False,
    "held_out": (),
    "videos": 2,
    "progress": False,
    "log_every": 1,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Watch(Callback):
    """Keeps what the batches and the steps of a run were like."""

    def __init__(self) -> None:
        self.losses: list[float] = []  # of each batch
        self.momentum: list[Tensor] = []  # a weight of the momentum encoder, after each batch
        self.rates: list[float] = []  # of each step
        self.gradients: list[Tensor] = []
        self.clipped: list[Tensor] = []  # the same as the step has used it, but for the last one

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        assert isinstance(pl_module, ContrastiveTraining)
        assert pl_module.momentum_encoder is not None
        self.losses.append(float(outputs["loss"]))
        self.momentum.append(next(pl_module.momentum_encoder.parameters()).detach().clone())

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.gradients.append(self._gradient(pl_module))

    def on_before_zero_grad(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        if self.gradients:
            self.clipped.append(self._gradient(pl_module))

    @staticmethod
    def _gradient(module: LightningModule) -> Tensor:
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), videos=10, frames=8)


def watched(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Watch:
    """Trains for two epochs of five batches."""
    watch = Watch()
    with monkeypatch.context() as patch:
        before = Callbacks.__iter__
        patch.setattr(Callbacks, "__iter__", lambda self: iter([*before(self), watch]))
        train(data=data, out=out, **{**SMALL, **options})
    return watch


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_accumulated_batches_make_one_step_of_their_mean(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five batches per epoch make three steps, the last of one batch.

    The steps are too small to change a float, so each batch has the gradient that it has alone.
    """
    still = {**SMALL, "optimiser.kind": "sgd", "lr": 1e-30}
    monkeypatch.setattr("usucl.training.callbacks.health.Health.check", lambda *_: None)
    one = watched(data, tmp_path / "one", monkeypatch, **still)
    two = watched(data, tmp_path / "two", monkeypatch, **still, accumulate=2)
    assert len(one.losses) == 10 and two.losses == one.losses
    assert len(one.gradients) == 10 and len(two.gradients) == 6
    for step, batches in enumerate(([0, 1], [2, 3], [4], [5, 6], [7, 8], [9])):
        mean = torch.stack([one.gradients[batch] for batch in batches]).mean(0)
        torch.testing.assert_close(two.gradients[step], mean, rtol=1e-4, atol=1e-6)
    for number in ("1", "2", "3", "4", "5", "6"):
        assert rows(tmp_path / "two")[int(number) - 1]["step"] == number
    assert [float(row["loss"]) for row in rows(tmp_path / "two")] == pytest.approx(
        [one.losses[batch] for batch in (1, 3, 4, 6, 8, 9)], rel=1e-6
    )


def test_warm_up_clipping_lars_and_accumulation_together_and_resumed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        **SMALL,
        "backbone": BACKBONE,
        "optimiser.kind": "lars",
        "lr": 0.5,
        "warmup": 1.0,
        "clip": 1e-2,
    }
    options |= {"accumulate": 2, "key.momentum": 0.5}
    run = watched(data, tmp_path / "run", monkeypatch, **options)
    assert run.rates == pytest.approx([0, 0.5 / 3, 1 / 3, 0.5, 0.375, 0.125])
    assert len(run.clipped) == 5
    for step, clipped in enumerate(run.clipped):
        whole = run.gradients[step]
        assert float(whole.norm()) > 1e-2
        torch.testing.assert_close(clipped, whole * (1e-2 / whole.norm()), rtol=1e-3, atol=1e-8)
    steps = [run.momentum[batch] for batch in (0, 2, 4, 5, 7, 9)]
    for first, second in ((0, 1), (2, 3), (5, 6), (7, 8)):
        assert torch.equal(run.momentum[first], run.momentum[second])
    # The first update finds the weights of the start, and a step with learning rate 0 keeps them.
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(steps)]
    assert moved == [False, True, True, True, True]

    def stop(self: Watch, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "on_before_zero_grad", stop)
        with pytest.raises(KeyboardInterrupt):
            watched(data, tmp_path / "stopped", monkeypatch, **options)
    train(out=tmp_path / "stopped", resume=True, progress=False)
    assert_equal_files(tmp_path / "stopped", tmp_path / "run")


def assert_equal_files(ours: Path, theirs: Path) -> None:
    """The weights and every figure that is not a time are the same."""
    name = "encoder.safetensors"
    assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    for row, other in zip(rows(ours), rows(theirs), strict=True):
        assert (row["step"], row["loss"]) == (other["step"], other["loss"])


def test_the_defaults_are_those_of_earlier_versions() -> None:
    optimiser = make_optimiser(network(), TrainingConfig().optimiser)
    assert isinstance(optimiser, torch.optim.AdamW)
    assert len(optimiser.param_groups) == 1 and optimiser.param_groups[0]["lr"] == 1e-3
