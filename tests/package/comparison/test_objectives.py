"""Losses of other methods: the papers' equations, gradients, momentum, queues, short trainings."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from usucl.comparison.objectives import OBJECTIVES, Objective, find_objective
from usucl.data import Curriculum, FrameBatch, FrameBatches, VideoCatalog, write_phantom
from usucl.losses import Frames
from usucl.models import EncoderConfig, FrameEncoder

pytest.importorskip("lightly")
pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, WIDTH, STEPS = 8, 12, 10
SMALL: dict[str, dict[str, Any]] = {
    "simclr": {"dim": 6},
    "simsiam": {"dim": 8, "bottleneck": 4},
    "byol": {"dim": 6, "hidden": 16},
    "moco": {"dim": 6, "queue": 8, "momentum": 0.9},
    "video-moco": {"dim": 6, "queue": 8, "momentum": 0.9},
    "lejepa": {"dim": 6, "hidden": 16, "slices": 32, "views": 3},
    "cycle-contrast": {"dim": 6, "queue": 8, "momentum": 0.9},
    "uscl": {"dim": 6},
    "ivpp": {"dim": 6, "radius": 4},
}
UNIFORM = ("simclr", "simsiam", "byol", "moco", "lejepa")
QUEUED = ("moco", "video-moco", "cycle-contrast")
every_objective = pytest.mark.parametrize("name", OBJECTIVES)


def made(name: str, features: nn.Module | None = None, width: int = WIDTH, **more: Any) -> Any:
    objective = OBJECTIVES[name]
    features = features or nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, width), nn.ReLU())
    return objective(features, width, STEPS, objective.options_from({**SMALL[name], **more}))


def batch_of(
    n: int = 5, positives: int = 1, video: Sequence[int] = (), offset: Sequence[float] = ()
) -> FrameBatch:
    """A batch of noise; the videos of the rows are different unless they are given."""
    shape = (n,) if positives == 1 else (n, positives)
    return FrameBatch(
        anchor_view=torch.randn(n, 3, SIZE, SIZE),
        positive_view=torch.randn(*shape, 3, SIZE, SIZE),
        negative_view=torch.empty(n, 0, 3, SIZE, SIZE),
        video=torch.tensor(video) if video else torch.arange(n),
        time=torch.zeros(n),
        patient=torch.full((n,), -1),
        frame=torch.zeros(n, dtype=torch.int64),
        negative_time=torch.empty(n, 0),
        positive_offset=torch.tensor(offset) if offset else torch.ones(shape),
    )


def positives_of(name: str) -> int:
    return {"lejepa": 2, "uscl": 2}.get(name, 1)


def vectors(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def nt_xent_terms(first: Tensor, second: Tensor, temperature: float) -> list[float]:
    """Chen et al., 2020, equation 1, for each of the 2 N views."""
    z, n = [*first, *second], len(first)
    terms = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = (math.exp(cosine(z[i], z[k]) / temperature) for k in range(2 * n) if k != i)
        terms.append(-math.log(math.exp(cosine(z[i], z[j]) / temperature) / sum(others)))
    return terms


def info_nce(query: Tensor, key: Tensor, negatives: Sequence[Tensor], temperature: float) -> float:
    """He et al., 2020, equation 1, for one query; all vectors are normalised."""
    positive = math.exp(float(query @ key) / temperature)
    others = sum(math.exp(float(query @ u) / temperature) for u in negatives)
    return -math.log(positive / (positive + others))


def unit(*shape: int) -> Tensor:
    return F.normalize(vectors(*shape), dim=1)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def close(found: Tensor, expected: float, tolerance: float = 1e-12) -> None:
    assert found.dtype == torch.float64 and found.shape == ()
    assert float(found) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("name", ["simclr", "uscl"])
def test_nt_xent(name: str) -> None:
    first, second = vectors(5, 6), vectors(5, 6)
    objective = made(name, temperature=0.3)
    close(objective.compare((first, second), batch_of()), mean(nt_xent_terms(first, second, 0.3)))


def test_nt_xent_of_ivpp_is_weighted_by_distance() -> None:
    first, second = vectors(5, 6), vectors(5, 6)
    distances = [0.0, 1.0, -2.0, 3.0, -4.0]
    terms = nt_xent_terms(first, second, 0.3)
    weights = [(4 - abs(d) + 1) / (4 + 1) for d in distances] * 2
    assert weights[0] == 1 and weights[4] == 1 / 5
    expected = mean([w * term for w, term in zip(weights, terms, strict=True)])
    batch = batch_of(offset=distances)
    close(made("ivpp", temperature=0.3).compare((first, second), batch), expected)
    plain = made("ivpp", temperature=0.3, weighted=False)
    close(plain.compare((first, second), batch), mean(terms))
    for wrong in (batch_of(offset=[0.25] * 5), batch_of()._replace(positive_offset=None)):
        with pytest.raises(ValueError, match="positive_offset must be in frames, got"):
            plain.compare((first, second), wrong)


def test_simsiam_is_the_mean_of_both_negative_similarities() -> None:
    p1, p2, z1, z2 = (vectors(5, 8).requires_grad_() for _ in range(4))
    with torch.no_grad():
        rows = zip(p1, z2, p2, z1, strict=True)
        both = [-cosine(a, b) / 2 - cosine(c, d) / 2 for a, b, c, d in rows]
    loss = made("simsiam").compare((p1, p2, z1, z2), batch_of())
    close(loss.detach(), mean(both))
    loss.backward()
    assert z1.grad is None and z2.grad is None
    assert p1.grad is not None and p2.grad is not None


def test_byol_is_the_sum_of_both_squared_distances() -> None:
    q1, q2, z1, z2 = (vectors(5, 6) for _ in range(4))

    def squared(a: Tensor, b: Tensor) -> float:
        return float((a / a.norm() - b / b.norm()).square().sum())

    both = [squared(a, b) + squared(c, d) for a, b, c, d in zip(q1, z2, q2, z1, strict=True)]
    close(made("byol").compare((q1, q2, z1, z2), batch_of()), mean(both))


def test_lejepa_is_the_epps_pulley_statistic_and_the_agreement() -> None:
    views = [vectors(7, 4) for _ in range(3)]
    objective = made("lejepa", dim=4, weight=0.2, slices=3)
    batch = batch_of(7)
    torch.manual_seed(5)
    loss = objective.compare(views, batch)
    torch.manual_seed(5)
    slices = vectors(4, 3)
    knots = [3 * i / 16 for i in range(17)]
    statistics = []
    for view in views:
        for direction in (slices / slices.norm(dim=0)).T:
            x = view @ direction
            value = []
            for t in knots:
                gap = torch.exp(1j * t * x).mean() - math.exp(-(t**2) / 2)
                value.append(float(gap.abs()) ** 2 * math.exp(-(t**2) / 2))
            half = sum(value) - (value[0] + value[-1]) / 2
            statistics.append(7 * 2 * half * 3 / 16)
    stacked = torch.stack(views)
    agreement = float((stacked - stacked.mean(0)).square().mean())
    # lightly keeps exp(-t^2 / 2) in float32.
    close(loss, 0.2 * mean(statistics) + 0.8 * agreement, 1e-6)


def queue_of(objective: Any, videos: Sequence[int]) -> Tensor:
    """Fills the queue; returns what is in it."""
    time = torch.full((len(videos),), torch.nan)
    objective.queue.enqueue(Frames(unit(len(videos), 6), torch.tensor(videos), time))
    return objective.queue.frames().embedding[: len(videos)].double()


@pytest.mark.parametrize("name", ["moco", "video-moco"])
def test_moco_is_info_nce_against_the_queue(name: str) -> None:
    objective = made(name, temperature=0.3)
    queue = queue_of(objective, videos := [0, 0, 1, 5, 2])
    query, key = unit(5, 6), unit(5, 6)
    expected = []
    for row in range(5):
        allowed = [u for u, v in zip(queue, videos, strict=True) if name == "moco" or v != row]
        expected.append(info_nce(query[row], key[row], allowed, 0.3))
    close(objective.compare((query, key), batch_of()), mean(expected))


def test_cycle_contrast_leads_back_through_the_soft_nearest_neighbour() -> None:
    objective = made("cycle-contrast", temperature=0.3, weight=0.4)
    queue = queue_of(objective, videos := [0, 0, 1, 5, 2])
    query, key = unit(5, 6), unit(5, 6)
    expected = []
    for row in range(5):
        allowed = [u for u, v in zip(queue, videos, strict=True) if v != row]
        shares = [math.exp(float(query[row] @ u) / 0.3) for u in allowed]
        neighbour = torch.stack([s * u for s, u in zip(shares, allowed, strict=True)]).sum(0)
        cycle = info_nce(neighbour / neighbour.norm(), key[row], allowed, 0.3)
        expected.append(info_nce(query[row], key[row], allowed, 0.3) + 0.4 * cycle)
    close(objective.compare((query, key), batch_of()), mean(expected))


def test_a_query_without_a_frame_of_another_video_has_no_loss() -> None:
    objective = made("cycle-contrast")
    batch = batch_of(3, video=[4, 4, 4])
    for videos in ([], [4, 4]):
        if videos:
            queue_of(objective, videos)
        query = vectors(3, 6).requires_grad_()
        loss = objective.compare((query, vectors(3, 6)), batch)
        loss.backward()
        assert float(loss.detach()) == 0 and query.grad is not None and not query.grad.any()


def test_uscl_mixes_two_frames_with_the_same_third() -> None:
    objective = made("uscl")
    shown: list[Tensor] = []

    class Recorder(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            shown.append(images)
            return images.flatten(1)

    objective.encoder = Recorder()
    batch = batch_of(64, positives=2)
    objective.embed(batch)
    shares = []
    for mixed, other in zip(shown[0].chunk(2), batch.positive_view.unbind(1), strict=True):
        difference = (other - batch.anchor_view).flatten(1)
        share = ((mixed - batch.anchor_view).flatten(1) * difference).sum(1)
        share /= difference.square().sum(1)
        line = batch.anchor_view + share[:, None, None, None] * (other - batch.anchor_view)
        torch.testing.assert_close(mixed, line, rtol=1e-4, atol=1e-4)
        shares.append(share)
    together = torch.cat(shares)
    assert together.min() >= 0 and together.max() <= 1
    # Beta(1/2, 1/2) has mean 1/2 and variance 1/8; the mean of 128 is within 5 deviations.
    assert abs(float(together.mean()) - 0.5) < 5 * math.sqrt(1 / 8 / 128)
    assert float(together.var()) > 1 / 12  # wider than uniform


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
    assert torch.equal(other.loss(batch), objective.loss(batch))


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
