"""Which frames are drawn: golden candidate sets, invariants, purity."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usucl.data import DenseSampler, FrameSampler, Sampler
from usucl.data.sampling.samplers import MISSING, Draw, negative_candidates, positive_candidates

lengths_of_videos = st.lists(st.integers(1, 120), min_size=1, max_size=12)


def test_candidates_are_those_of_the_official_code(golden_root: Path) -> None:
    cases = json.loads((golden_root / "official_sampling.json").read_text())["sampling"]
    assert len(cases) == 45
    for case in cases:
        n, anchor, radius = case["num_frames"], case["anchor"], case["positive_radius"]
        window = (case["window"][0] * n, case["window"][1] * n)
        assert anchor in FrameSampler().anchors(n)
        assert positive_candidates(n, anchor, radius).tolist() == case["positives"]
        assert negative_candidates(n, anchor, window, radius).tolist() == case["negatives"], case


@given(
    n=st.integers(1, 300),
    share=st.floats(0, 1, exclude_max=True),
    lo=st.floats(0, 0.5),
    width=st.floats(0, 0.5),
    radius=st.integers(0, 8),
)
def test_negatives_lie_beyond_positives(
    n: int, share: float, lo: float, width: float, radius: int
) -> None:
    anchor = int(share * n)
    positives = positive_candidates(n, anchor, radius)
    negatives = negative_candidates(n, anchor, (lo * n, (lo + width) * n), radius)
    assert len(positives) and np.all(np.abs(positives - anchor) <= radius)
    assert n == 1 or radius == 0 or anchor not in positives
    assert np.all(np.abs(negatives - anchor) > radius)
    assert np.all((negatives >= 0) & (negatives < n))
    assert np.all(np.diff(negatives) > 0)


@given(lengths=lengths_of_videos, seed=st.integers(0, 9), epoch=st.integers(0, 50))
def test_paper_epoch_visits_every_video_once(lengths: list[int], seed: int, epoch: int) -> None:
    sampler = FrameSampler(batch_videos=4)
    windows = [(0.2 * n, 0.4 * n) for n in lengths]
    draws = [
        sampler.draw(lengths, windows, seed=seed, epoch=epoch, step=step)
        for step in range(sampler.steps(lengths))
    ]
    assert sorted(np.concatenate([d.video for d in draws])) == list(range(len(lengths)))
    sizes = [len(draw.video) for draw in draws]
    assert max(sizes) <= 4 and (min(sizes) > 1 or len(lengths) == 1)
    for draw in draws:
        assert draw.negatives.shape == (len(draw.video), 3)
        for video, anchor, positive, negatives in zip(*draw, strict=True):
            n = lengths[video]
            assert anchor in sampler.anchors(n)
            assert positive in positive_candidates(n, anchor, 3)
            inside = negative_candidates(n, anchor, windows[video], 3)
            expected = set(inside.tolist()) if len(inside) else {MISSING}
            assert set(negatives.tolist()) <= expected


@pytest.mark.parametrize(
    ("videos", "batch", "sizes"),
    [(9, 4, [3, 3, 3]), (5, 2, [3, 2]), (3, 2, [3]), (1, 4, [1]), (2, 1, [1, 1])],
)
def test_no_batch_of_one_video_is_left_over(videos: int, batch: int, sizes: list[int]) -> None:
    sampler, lengths = FrameSampler(batch), [20] * videos
    draws = [
        sampler.draw(lengths, [(4.0, 8.0)] * videos, seed=0, epoch=0, step=step)
        for step in range(sampler.steps(lengths))
    ]
    assert [len(draw.video) for draw in draws] == sizes


def test_anchor_range_is_that_of_the_paper() -> None:
    assert FrameSampler().anchors(30) == range(6, 15)
    assert FrameSampler().anchors(400) == range(80, 200)
    assert [len(FrameSampler().anchors(n)) for n in (1, 2, 3)] == [1, 1, 2]


@given(
    lengths=lengths_of_videos,
    videos=st.integers(1, 6),
    frames=st.integers(1, 20),
    radius=st.integers(0, 4),
    step=st.integers(0, 20),
)
def test_dense_batch_is_stratified_over_distinct_videos(
    lengths: list[int], videos: int, frames: int, radius: int, step: int
) -> None:
    sampler = DenseSampler(videos, frames, radius)
    draw = sampler.draw(lengths, [], seed=1, epoch=2, step=step)
    distinct = min(videos, len(lengths))
    assert len(draw.anchor) == distinct * frames
    assert draw.negatives.shape == (distinct * frames, 0)
    assert Counter(draw.video.tolist()) == dict.fromkeys(draw.video.tolist(), frames)
    n = np.array(lengths)[draw.video]
    assert np.all((draw.anchor >= 0) & (draw.anchor < n))
    assert np.all((draw.positive >= 0) & (draw.positive < n))
    assert np.all(np.abs(draw.positive - draw.anchor) <= radius)
    stratum = np.tile(np.arange(frames), distinct)
    assert np.all(draw.anchor >= np.floor(stratum * n / frames))
    assert np.all(draw.anchor <= np.ceil((stratum + 1) * n / frames))


def test_dense_steps_are_balanced_over_videos() -> None:
    sampler = DenseSampler(videos=4, frames=2)
    lengths = [10, 1000, 30, 40, 50, 60, 70]
    seen: Counter[int] = Counter()
    for step in range(2 * 50):
        draw = sampler.draw(lengths, [], seed=0, epoch=0, step=step)
        seen.update(set(draw.video.tolist()))
    # 50 rounds show every video at least once, and one video each a second time.
    assert sum(seen.values()) == 400
    assert min(seen.values()) >= 50 and max(seen.values()) < 75


def test_steps_of_an_epoch() -> None:
    assert FrameSampler(batch_videos=32).steps([9] * 64) == 2
    assert FrameSampler(batch_videos=32).steps([9] * 65) == 3
    assert DenseSampler(videos=8, frames=16).steps([100] * 64) == 50
    assert DenseSampler(videos=8, frames=16).steps([100, 28]) == 4
    assert DenseSampler(steps_per_epoch=7).steps([100] * 64) == 7


@pytest.mark.parametrize("sampler", [FrameSampler(), DenseSampler()])
def test_draws_are_pure(sampler: Sampler) -> None:
    lengths = [50, 60, 70, 80]
    windows = [(0.2 * n, 0.4 * n) for n in lengths]

    def draw(seed: int, epoch: int, step: int) -> Draw:
        return sampler.draw(lengths, windows, seed=seed, epoch=epoch, step=step)

    def same(a: Draw, b: Draw) -> bool:
        return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))

    first = draw(1, 2, 0)
    np.random.default_rng(0).random(5)
    assert same(first, draw(1, 2, 0))
    assert not same(first, draw(1, 3, 0))
    assert not same(first, draw(2, 2, 0))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: FrameSampler(batch_videos=0), "batch_videos"),
        (lambda: FrameSampler(negatives=-1), "negatives"),
        (lambda: FrameSampler(anchor_range=(0.5, 0.2)), "anchor_range"),
        (lambda: DenseSampler(videos=0), "videos"),
        (lambda: DenseSampler(positive_radius=-1), "positive_radius"),
        (lambda: DenseSampler(steps_per_epoch=0), "steps_per_epoch"),
    ],
)
def test_errors_name_the_argument(make, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        make()
