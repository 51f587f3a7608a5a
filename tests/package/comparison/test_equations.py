"""Losses of other methods against their equations, in loops and float64."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_objectives import batch_of, made
from torch import Tensor, nn

from usucl.losses import Frames

pytest.importorskip("lightly")
pytestmark = pytest.mark.usefixtures("one_thread")


def vectors(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def nt_xent_terms(first: Tensor, second: Tensor, temperature: float) -> list[float]:
    """NT-Xent of Chen et al., 2020, for each of the 2 N views."""
    z, n = [*first, *second], len(first)
    terms = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = (math.exp(cosine(z[i], z[k]) / temperature) for k in range(2 * n) if k != i)
        terms.append(-math.log(math.exp(cosine(z[i], z[j]) / temperature) / sum(others)))
    return terms


def info_nce(query: Tensor, key: Tensor, negatives: Sequence[Tensor], temperature: float) -> float:
    """InfoNCE of He et al., 2020, for one query; all vectors are normalised."""
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


def queue_of(objective: Any, videos: Sequence[int], dim: int = 6) -> Tensor:
    """Fills the queue; returns what is in it."""
    time = torch.full((len(videos),), torch.nan)
    objective.queue.enqueue(Frames(unit(len(videos), dim), torch.tensor(videos), time))
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
    objective = made("cycle-contrast", temperature=0.3, weight=0.4, share=0.5)
    queue = queue_of(objective, videos := [0, 0, 1, 5, 2, 1, 3], dim=12)
    (query, start), (key, end) = (unit(5, 6), unit(5, 6)), (unit(5, 6), unit(5, 6))
    embedded = torch.cat([3 * query, start], dim=1), torch.cat([key, 2 * end], dim=1)
    batch = batch_of()
    torch.manual_seed(5)
    loss = objective.compare(embedded, batch)
    torch.manual_seed(5)
    order = torch.randperm(7).tolist()
    candidates, rest = order[:4], order[4:]  # a half of 7, rounded up

    def part(entries: Sequence[int], row: int, half: int) -> list[Tensor]:
        others = [queue[e].chunk(2)[half] for e in entries if videos[e] != row]
        return [u / u.norm() for u in others]

    expected = []
    for row in range(5):
        among = part(candidates, row, 1)
        shares = [math.exp(float(start[row] @ u) / 0.3) for u in among]
        neighbour = torch.stack([s * u for s, u in zip(shares, among, strict=True)]).sum(0)
        back = info_nce(neighbour / neighbour.norm(), end[row], part(rest, row, 1), 0.3)
        video = info_nce(query[row], key[row], part(range(7), row, 0), 0.3)
        expected.append(video + 0.4 * back)
    close(loss, mean(expected))
    kept = objective._latest.embedding
    torch.testing.assert_close(kept, torch.cat([key, end], dim=1) / math.sqrt(2))


def test_a_query_without_a_candidate_has_no_loss_of_the_cycle() -> None:
    objective = made("cycle-contrast", share=0.5)
    queue_of(objective, [0, 0, 1, 1], dim=12)
    query, key, batch = vectors(1, 12), vectors(1, 12), batch_of(1)
    losses = set()
    for seed in range(20):  # candidates are both of video 0, one of them, or none
        torch.manual_seed(seed)
        candidates = torch.randperm(4)[:2]
        torch.manual_seed(seed)
        loss = float(objective.compare((query, key), batch))
        if candidates.max() == 1:
            losses.add(loss)
    objective.options = dataclasses.replace(objective.options, weight=0.0)
    assert losses == {float(objective.compare((query, key), batch))}


def test_a_query_without_a_frame_of_another_video_has_no_loss() -> None:
    objective = made("cycle-contrast")
    batch = batch_of(3, video=[4, 4, 4])
    for videos in ([], [4, 4]):
        if videos:
            queue_of(objective, videos, dim=12)
        query = vectors(3, 12).requires_grad_()
        loss = objective.compare((query, vectors(3, 12)), batch)
        loss.backward()
        assert float(loss.detach()) == 0 and query.grad is not None and not query.grad.any()


def test_uscl_mixes_two_frames_with_the_same_third_in_the_same_share() -> None:
    objective = made("uscl")
    shown: list[Tensor] = []

    class Recorder(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            shown.append(images)
            return images.flatten(1)

    objective.encoder = Recorder()
    batch = batch_of(128, positives=2)
    objective.embed(batch)
    shares = []
    for mixed, other in zip(shown, batch.positive_view.unbind(1), strict=True):
        difference = (other - batch.anchor_view).flatten(1)
        share = ((mixed - batch.anchor_view).flatten(1) * difference).sum(1)
        share /= difference.square().sum(1)
        line = batch.anchor_view + share[:, None, None, None] * (other - batch.anchor_view)
        torch.testing.assert_close(mixed, line, rtol=1e-4, atol=1e-4)
        shares.append(share)
    share, again = shares
    torch.testing.assert_close(share, again, rtol=1e-4, atol=1e-4)
    assert share.min() >= -1e-4 and share.max() <= 1 + 1e-4
    # Beta(1/2, 1/2) has mean 1/2 and variance 1/8; the mean of 128 is within 5 deviations.
    assert abs(float(share.mean()) - 0.5) < 5 * math.sqrt(1 / 8 / 128)
    assert float(share.var()) > 1 / 12  # wider than uniform
