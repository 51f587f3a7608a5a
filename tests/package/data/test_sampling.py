"""Which frames are drawn: golden candidate sets, invariants, purity."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usucl.data import DenseSampler, FrameSampler, Sampler, UniformSampler
from usucl.data.sampling.balance import drawn_videos
from usucl.data.sampling.candidates import (
    VideoTraits,
    clamp_window,
    gap_in_frames,
    timed_negative_candidates,
)
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


@given(lengths=lengths_of_videos, frames=st.integers(1, 200), radius=st.integers(0, 4))
def test_a_uniform_epoch_shows_every_frame(lengths: list[int], frames: int, radius: int) -> None:
    sampler, total = UniformSampler(frames, radius), sum(lengths)
    seen: Counter[tuple[int, int]] = Counter()
    for step in range(sampler.steps(lengths)):
        draw = sampler.draw(lengths, [], seed=1, epoch=2, step=step)
        shown = list(zip(draw.video.tolist(), draw.anchor.tolist(), strict=True))
        assert len(shown) == len(set(shown)) == min(frames, total)
        assert draw.negatives.shape == (len(shown), 0)
        n = np.array(lengths)[draw.video]
        assert np.all((draw.positive >= 0) & (draw.positive < n))
        assert np.all(np.abs(draw.positive - draw.anchor) <= radius)
        seen.update(shown)
    assert set(seen) == {(video, frame) for video, n in enumerate(lengths) for frame in range(n)}
    assert seen.total() - total < frames  # the last batch begins again


def test_steps_of_an_epoch() -> None:
    assert FrameSampler(batch_videos=32).steps([9] * 64) == 2
    assert FrameSampler(batch_videos=32).steps([9] * 65) == 3
    assert DenseSampler(videos=8, frames=16).steps([100] * 64) == 50
    assert DenseSampler(videos=8, frames=16).steps([100, 28]) == 4
    assert DenseSampler(steps_per_epoch=7).steps([100] * 64) == 7
    assert UniformSampler(frames=16).steps([100, 28, 1]) == 9
    assert UniformSampler(steps_per_epoch=7).steps([100] * 64) == 7


@pytest.mark.parametrize(
    ("sampler", "digest"),
    [
        (FrameSampler(3), "74e0c8367e3c7418"),
        (FrameSampler(), "a8ec0b4df533a465"),
        (FrameSampler(negatives=5, positive_radius=1), "19035acde2b12228"),
        (DenseSampler(3, 4), "faef73f21927bab6"),
        (DenseSampler(), "f70671c42058894b"),
        (DenseSampler(2, 5, 0), "c06ee941b5407b9c"),
    ],
)
def test_draws_of_earlier_versions_stay(sampler: Sampler, digest: str) -> None:
    lengths = [50, 7, 33, 2, 26, 120, 1, 64]
    hashed = hashlib.sha256()
    for seed in (0, 7):
        for epoch, (lo, hi) in ((0, (0.2, 0.4)), (3, (0.03, 0.07))):
            windows = [(lo * n, hi * n) for n in lengths]
            for step in range(sampler.steps(lengths)):
                for column in sampler.draw(lengths, windows, seed=seed, epoch=epoch, step=step):
                    hashed.update(np.ascontiguousarray(column).tobytes())
                    hashed.update(str(column.shape).encode())
    assert hashed.hexdigest().startswith(digest)


def traits(patient: list[int], gap: int = 1) -> VideoTraits:
    v = len(patient)
    return VideoTraits(np.array(patient), np.full(v, gap), (None,) * v)


@pytest.mark.parametrize("radius", [0, 3])
@pytest.mark.parametrize(
    "make",
    [
        lambda **o: FrameSampler(4, **o),
        lambda **o: DenseSampler(4, 2, **o),
        lambda **o: UniformSampler(8, **o),
    ],
)
def test_several_positives_are_distinct_where_there_are_as_many(make, radius: int) -> None:
    lengths = [40, 3, 25, 30]
    sampler = make(positives=3, positive_radius=radius)
    draw = sampler.draw(lengths, [(8.0, 16.0)] * 4, seed=0, epoch=0, step=0)
    assert draw.positive.shape == (len(draw.anchor), 3)
    for video, anchor, positives in zip(*draw[:3], strict=True):
        near = positive_candidates(lengths[video], anchor, radius)
        assert set(positives) <= set(near)
        assert len(set(positives)) == min(3, len(near))


@pytest.mark.parametrize("make", [FrameSampler, lambda n, **o: DenseSampler(n, 2, **o)])
def test_balance_by_patient_draws_patients_equally_often(make) -> None:
    patient = [0, 0, 0, 0, 0, 0, 1, 1, 2, -1, -1]  # the last two are of unknown patients
    lengths, known = [20] * len(patient), traits(patient)
    sampler = make(3, balance="patient")
    windows = [(4.0, 8.0)] * len(patient)
    videos = [
        set(sampler.draw(lengths, windows, seed=1, epoch=0, step=s, traits=known).video.tolist())
        for s in range(2 * 60)  # 5 patients in 2 steps of 3: one of them comes twice per round
    ]
    seen = Counter(video for step in videos for video in step)
    per_patient = [sum(seen[v] for v in own) for own in (range(6), (6, 7), (8,), (9,), (10,))]
    assert min(per_patient) >= 60 and max(per_patient) <= 90
    for own in (range(6), (6, 7)):
        assert max(seen[v] for v in own) - min(seen[v] for v in own) <= 15
    for step in videos:
        assert len({(patient[v], v if patient[v] < 0 else 0) for v in step}) == len(step) == 3
    with pytest.raises(ValueError, match="traits must tell the patients"):
        sampler.draw(lengths, windows, seed=1, epoch=0, step=0)


def test_balance_by_frame_draws_in_proportion_to_length() -> None:
    lengths, rounds = [10, 20, 30, 40, 100, 400], 3000
    seen: Counter[int] = Counter()
    for step in range(rounds):
        place = {"seed": 0, "epoch": 0, "step": step}
        videos = drawn_videos("frame", lengths, None, 2, **place)
        assert len(set(videos.tolist())) == 2
        seen.update(videos.tolist())
    assert seen[5] == rounds  # longer than its share: it is in every step
    for video, length in enumerate(lengths[:5]):
        assert seen[video] / rounds == pytest.approx(length / 200, abs=0.04)  # 4 deviations
    everything = drawn_videos("frame", lengths, None, 6, seed=0, epoch=0, step=0)
    assert sorted(everything.tolist()) == list(range(6))


def test_steps_of_an_epoch_by_balance() -> None:
    known = traits([0, 0, 0, 1, 1, -1])
    assert FrameSampler(4, balance="patient").steps([20] * 6, known) == 2  # 3 patients
    assert FrameSampler(4, balance="frame").steps([20] * 6, known) == 2
    assert DenseSampler(4, 5, balance="patient").steps([20] * 6, known) == 8
    assert DenseSampler(4, 5, balance="frame").steps([20] * 6, known) == 6


def test_the_gap_counts_from_the_farthest_positive() -> None:
    assert clamp_window((1.0, 2.0), 3) == (4, 6)  # as in the official code
    assert clamp_window((1.0, 2.0), 3, gap=10) == (13, 15)
    assert clamp_window((20.0, 30.0), 3, gap=10) == (20.0, 30.0)
    assert [gap_in_frames(gap, 30.0) for gap in (0.0, 0.01, 0.1, 0.5, 0.51)] == [1, 1, 3, 15, 16]
    inside = negative_candidates(60, 30, (1.0, 2.0), 3, gap=10)
    assert inside.tolist() == [15, 16, 43, 44]
    sampler, gapped = FrameSampler(negatives=20), traits([-1], gap=10)
    draw = sampler.draw([60], [(1.0, 2.0)], seed=0, epoch=0, step=0, traits=gapped)
    assert {abs(int(d)) for d in draw.negatives[0] - draw.anchor[0]} <= {13, 14, 15}


def test_windows_follow_real_times_where_the_rate_varies() -> None:
    # 20 frames at one per unit, then 10 at one per 3 units
    position = np.concatenate([np.arange(20.0), 19 + 3 * np.arange(1.0, 11)])
    at = {
        anchor: timed_negative_candidates(position, anchor, (6.0, 9.0), 3)
        for anchor in (10, 18, 24)
    }
    assert at[10].tolist() == [1, 2, 3, 4, 16, 17, 18, 19]
    # Positives after frame 18 lie up to 7 away: negatives begin at 8, and reach to 10.
    assert at[18].tolist() == [8, 9, 10, 22]
    assert at[24].tolist() == [20, 28]  # positives up to 9 away
    known = VideoTraits(np.array([-1]), np.array([1]), (position,))
    sampler = FrameSampler(negatives=6)
    draw = sampler.draw([30], [(6.0, 9.0)], seed=0, epoch=0, step=0, traits=known)
    expected = timed_negative_candidates(position, int(draw.anchor[0]), (6.0, 9.0), 3)
    assert set(draw.negatives[0].tolist()) <= set(expected.tolist())


@pytest.mark.parametrize("sampler", [FrameSampler(), DenseSampler(), UniformSampler(16, 3)])
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
        (lambda: DenseSampler(positives=0), "positives"),
        (lambda: FrameSampler(positives=0), "positives"),
        (lambda: DenseSampler(balance="videos"), "balance"),
        (lambda: FrameSampler(balance=""), "balance"),
        (lambda: UniformSampler(frames=0), "frames"),
        (lambda: UniformSampler(positive_radius=-1), "positive_radius"),
        (lambda: UniformSampler(steps_per_epoch=0), "steps_per_epoch"),
        (lambda: UniformSampler(positives=0), "positives"),
    ],
)
def test_errors_name_the_argument(make, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        make()
