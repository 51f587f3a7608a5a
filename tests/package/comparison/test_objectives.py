"""Objectives of other methods: gradients, momentum, queues, samplers, options, short trainings."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import pytest
import torch
from small_objectives import QUEUED, SMALL, STEPS, UNIFORM, batch_of, made, positives_of
from torch import nn

from usucl.comparison.objectives import OBJECTIVES, Objective, find_objective
from usucl.data import Curriculum, FrameBatch, FrameBatches, VideoCatalog, write_phantom
from usucl.models import EncoderConfig, FrameEncoder

pytest.importorskip("lightly")
pytestmark = pytest.mark.usefixtures("one_thread")
every_objective = pytest.mark.parametrize("name", OBJECTIVES)


@every_objective
def test_gradients_reach_features_and_heads_and_no_momentum_copy(name: str) -> None:
    objective = made(name)
    batch = batch_of(8, positives_of(name))
    objective.loss(batch)
    objective.after_step(0)  # fills the queue
    objective.loss(batch_of(8, positives_of(name), video=range(8, 16))).backward()
    copies = {id(p) for part in ("keys", "target") for p in _parameters(objective, part)}
    for key, parameter in objective.named_parameters():
        if id(parameter) in copies:
            assert not parameter.requires_grad and parameter.grad is None
        else:
            assert parameter.requires_grad and parameter.grad is not None, key
            assert parameter.grad.isfinite().all()
            # The bias of a layer before batch normalisation has a gradient of 0.
            assert parameter.dim() == 1 or parameter.grad.any(), key
    assert bool(copies) == (name in (*QUEUED, "byol"))


def _parameters(objective: nn.Module, part: str) -> list[nn.Parameter]:
    return list(getattr(objective, part).parameters()) if hasattr(objective, part) else []


@pytest.mark.parametrize("name", [*QUEUED, "byol"])
def test_momentum_copies_follow(name: str) -> None:
    objective = made(name)
    copy = objective.target if name == "byol" else objective.keys
    for step in (0, 5, STEPS):
        before = [p.clone() for p in copy.encoder.parameters()]
        with torch.no_grad():
            for parameter in objective.encoder.parameters():
                parameter.add_(torch.randn_like(parameter))
        objective.after_step(step)
        rising = 1 - (1 - 0.996) * (math.cos(math.pi * step / STEPS) + 1) / 2
        momentum = rising if name == "byol" else 0.9
        for own, old, other in zip(
            copy.encoder.parameters(), before, objective.encoder.parameters(), strict=True
        ):
            torch.testing.assert_close(own, momentum * old + (1 - momentum) * other)
    assert name != "byol" or copy.momentum == 1


LAYERS = {nn.Linear: "L", nn.BatchNorm1d: "N", nn.ReLU: "R"}
CONSTANTS: dict[str, tuple[str, dict[str, Any]]] = {  # layers of the head, and defaults
    "simclr": ("LNRLN", {"dim": 128, "temperature": 0.1}),
    "simsiam": ("LNRLNRLN", {"dim": 2048, "bottleneck": 512}),
    "byol": ("LNRL", {"dim": 256, "hidden": 4096, "momentum": 0.996}),
    "moco": ("LRL", {"dim": 128, "temperature": 0.2, "queue": 65536, "momentum": 0.999}),
    "video-moco": ("LRL", {"dim": 128, "temperature": 0.2, "queue": 65536, "momentum": 0.999}),
    "lejepa": ("LNRLNRL", {"hidden": 2048, "weight": 0.05, "slices": 1024}),
    "cycle-contrast": (
        "LRLLRL",
        {"dim": 128, "temperature": 0.07, "queue": 81920, "weight": 0.1, "share": 16384 / 81920},
    ),
    "uscl": ("LRL", {"dim": 256, "temperature": 0.5, "alpha": 0.5, "beta": 0.5}),
    "ivpp": ("LNRL", {"dim": 768, "temperature": 0.1, "radius": 45, "weighted": True}),
}


@every_objective
def test_heads_and_defaults_are_those_of_the_authors_code(name: str) -> None:
    layers, defaults = CONSTANTS[name]
    head = made(name).encoder[1]
    assert "".join(LAYERS.get(type(layer), "") for layer in head.modules()) == layers
    options = OBJECTIVES[name].options_from({})
    assert {key: getattr(options, key) for key in defaults} == defaults


@every_objective
def test_batch_statistics_are_those_of_the_authors_code(name: str) -> None:
    objective, sizes = made(name), []
    objective.encoder.register_forward_hook(lambda _, images, out: sizes.append(len(out)))
    objective.loss(batch_of(4, positives_of(name)))
    together = {"simclr": [8], "lejepa": [12]}  # all views of the frames; the others view by view
    assert sizes == together.get(name, [4] if name in QUEUED else [4, 4])


@pytest.mark.parametrize("name", QUEUED)
def test_queues_rotate_and_are_part_of_the_state(name: str) -> None:
    objective = made(name)
    keys = []
    for step in range(4):
        batch = batch_of(3, video=range(3 * step, 3 * step + 3))
        held = len(objective.queue)
        loss = objective.loss(batch)
        assert len(objective.queue) == held  # keys are no negatives of their own step
        assert step or float(loss.detach()) == 0
        keys.append(objective._latest.embedding)
        objective.after_step(step)
    frames = objective.queue.frames()
    assert frames.video.tolist() == [8, 9, 10, 11, 4, 5, 6, 7]  # frame e is in slot e % 8
    latest = torch.cat(keys)[frames.video]
    assert torch.equal(frames.embedding, latest) and not latest.requires_grad
    other = made(name)
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other.queue.frames().embedding, frames.embedding)
    losses = []
    for each in (other, objective):
        torch.manual_seed(5)  # cycle-contrast draws candidates
        losses.append(each.loss(batch))
    assert torch.equal(*losses)


def test_under_autocast_the_loss_is_computed_in_float32() -> None:
    objective = made("simclr")
    with torch.autocast("cpu", torch.bfloat16):
        assert objective.encoder(batch_of().anchor_view).dtype == torch.bfloat16
        assert objective.loss(batch_of()).dtype == torch.float32


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> VideoCatalog:
    folder = tmp_path_factory.mktemp("phantom") / "videos"
    return VideoCatalog.scan(write_phantom(folder, videos=6, frames=8, image_size=32))


def losses_of(name: str, batch: FrameBatch, steps: int) -> list[float]:
    """Trains a network on one batch again and again; returns the loss before each step."""
    torch.manual_seed(3)
    backbone = FrameEncoder(EncoderConfig("resnet10", 32, 8)).backbone
    objective: Objective[Any] = made(name, backbone, 512)
    optimiser = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for step in range(steps):
        optimiser.zero_grad()
        loss = objective.loss(batch)
        loss.backward()
        optimiser.step()
        objective.after_step(step)
        losses.append(loss.item())
    return losses


@every_objective
def test_training_lowers_the_loss_and_repeats_to_the_bit(name: str, catalog: VideoCatalog) -> None:
    objective = OBJECTIVES[name]
    sampler = objective.sampler(6, objective.options_from(SMALL[name]))
    batch = FrameBatches(
        catalog, sampler, image_size=32, curriculum=Curriculum(), time_unit=objective.time_unit
    )[0, 0]
    losses = losses_of(name, batch, 4)
    assert all(math.isfinite(loss) for loss in losses)
    # A queue that fills makes the task harder from step to step.
    assert name in QUEUED or losses[-1] < losses[0]
    assert losses_of(name, batch, 3) == losses[:3]  # the last is that of the weights after two


@every_objective
def test_samplers_are_those_of_the_papers(name: str, catalog: VideoCatalog) -> None:
    objective = OBJECTIVES[name]
    options: Any = objective.options_from(SMALL[name])
    batches = FrameBatches(catalog, objective.sampler(3, options), image_size=32)
    distances: list[int] = []
    for epoch in range(20):
        draw = batches.draw(epoch, 0)
        positive = draw.positive.reshape(3, -1)
        assert positive.shape[1] == positives_of(name) and draw.negatives.shape[1] == 0
        assert name in UNIFORM or len(set(draw.video.tolist())) == 3
        distances += abs(positive - draw.anchor[:, None]).ravel().tolist()
    if name in UNIFORM:
        assert not any(distances)  # another view of the same frame
    else:
        assert min(distances) == 1
        assert max(distances) == 4 if name == "ivpp" else max(distances) > 4


@pytest.mark.parametrize(
    ("name", "given", "error", "message"),
    [
        ("simclr", {"temprature": 1.0}, ValueError, "simclr must be among .* did you mean temper"),
        ("simclr", {"temperature": 0.0}, ValueError, "of simclr: temperature must be finite and >"),
        ("simclr", {"temperature": "0.1"}, TypeError, "temperature of simclr must be float, got"),
        ("simclr", {"dim": 0}, ValueError, "options of simclr: dim must be >= 1, got 0"),
        ("simsiam", {"bottleneck": 0}, ValueError, "bottleneck must be >= 1"),
        ("byol", {"momentum": 1.5}, ValueError, r"momentum must be in \[0, 1\], got 1.5"),
        ("byol", {"hidden": 0}, ValueError, "hidden must be >= 1"),
        ("moco", {"queue": 0}, ValueError, "queue must be >= 1"),
        ("moco", {"queue": 1.5}, TypeError, "queue of moco must be int, got 1.5"),
        ("lejepa", {"views": 1}, ValueError, "views must be >= 2"),
        ("lejepa", {"weight": -0.1}, ValueError, "weight must be in"),
        ("lejepa", {"slices": 0}, ValueError, "slices must be >= 1"),
        ("cycle-contrast", {"weight": -1.0}, ValueError, "weight must be finite and >= 0"),
        ("cycle-contrast", {"share": 0.0}, ValueError, r"share must be in \(0, 1\], got 0.0"),
        ("uscl", {"alpha": 0.0}, ValueError, "alpha must be finite and > 0"),
        ("uscl", {"beta": math.nan}, ValueError, "beta must be finite and > 0"),
        ("ivpp", {"radius": -1}, ValueError, "radius must be >= 0"),
        ("ivpp", {"weighted": 1}, TypeError, "weighted of ivpp must be bool, got 1"),
    ],
)
def test_options_are_checked(
    name: str, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        OBJECTIVES[name].options_from(given)


def test_arguments_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"objective must be one of .* did you mean simclr"):
        find_objective("simclr2")
    assert find_objective("byol") is OBJECTIVES["byol"]
    for width, steps, name in ((0, 1, "width"), (1, 0, "steps")):
        with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
            OBJECTIVES["simclr"](nn.Identity(), width, steps)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs lightly, .* pip install 'usucl\[compare\]'"):
        OBJECTIVES["simclr"](nn.Identity(), 4, 1)


def test_titles_and_sources_are_told_apart() -> None:
    assert len({o.title for o in OBJECTIVES.values()}) == len(OBJECTIVES)
    assert all(o.source and o.name == name for name, o in OBJECTIVES.items())
