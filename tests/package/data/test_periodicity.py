"""Periods of made-up motion: found where there is one, and only there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usucl.data import open_video, write_phantom
from usucl.data.catalog.periodicity import PERIODIC, _quantile, periodicity

SIDE = 32


def heart(
    phase: np.ndarray, *, noise: float = 4.0, drift: float = 0.0, seed: int = 0
) -> np.ndarray:
    """Thumbnails of a chamber in tissue whose radius follows ``phase``, and which drifts."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    tissue = rng.normal(110, 25, (SIDE, SIDE))
    frames = []
    for number, p in enumerate(phase):
        centre = 13 + drift * number / len(phase)
        radius = 7 + 3 * p
        chamber = 1 / (1 + np.exp(np.hypot(y - 16, x - centre) - radius))
        frames.append(tissue * (1 - 0.85 * chamber) + rng.normal(0, noise, (SIDE, SIDE)))
    return np.clip(frames, 0, 255).astype(np.uint8)


def beats(frames: int, period: float) -> np.ndarray:
    """A phase that contracts fast and relaxes slowly, as a heart does."""
    at = np.arange(frames) / period % 1
    return np.where(at < 0.3, np.sin(np.pi * at / 0.6), np.cos(np.pi * (at - 0.3) / 1.4)) ** 2


@pytest.mark.parametrize("drift", [0, 4])
@pytest.mark.parametrize("period", [5, 8.5, 12, 20, 33.3, 60])
def test_the_period_of_a_beating_chamber(period: float, drift: float) -> None:
    found, strength = periodicity(heart(beats(150, period), drift=drift))
    assert found == pytest.approx(period, abs=1)
    assert strength > (0.4 if drift else 0.6)


def test_two_beats_are_enough_and_one_is_not() -> None:
    found, _ = periodicity(heart(beats(48, 20)))
    assert found == pytest.approx(20, abs=1)
    assert periodicity(heart(beats(30, 20)))[0] is None


def test_a_loop_played_several_times() -> None:
    loop = np.random.default_rng(0).integers(0, 256, (9, SIDE, SIDE), dtype=np.uint8)
    found, strength = periodicity(np.concatenate([loop] * 4))
    assert found == pytest.approx(9, abs=0.5)
    assert strength > 0.99


@pytest.mark.parametrize("seed", range(3))
def test_noise_has_no_period(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (80, SIDE, SIDE), dtype=np.uint8)
    found, strength = periodicity(noise)
    assert found is None
    assert strength < 0.2


@pytest.mark.parametrize("seed", range(3))
def test_a_texture_that_moves_on_has_no_period(seed: int) -> None:
    rng = np.random.default_rng(seed)
    long = np.repeat(np.repeat(rng.integers(0, 256, (16, 80), dtype=np.uint8), 2, 0), 2, 1)
    found, strength = periodicity(np.stack([long[:, i : i + SIDE] for i in range(100)]))
    assert found is None
    assert strength < 0.2


def test_synthetic_sweeps_have_no_period(tmp_path: Path) -> None:
    write_phantom(tmp_path / "phantom", videos=2, frames=24, image_size=64)
    for folder in sorted((tmp_path / "phantom").glob("patient*")):
        thumbnails = open_video(folder).thumbnails
        assert thumbnails is not None
        found, strength = periodicity(thumbnails)
        assert found is None
        assert strength < 0.2


@pytest.mark.parametrize("turn", [0.3, 0.5, 0.7])
def test_once_back_and_forth_is_no_period(turn: float) -> None:
    at = np.linspace(0, 1, 90)
    there = np.where(at < turn, at / turn, (1 - at) / (1 - turn))
    assert periodicity(heart(there))[0] is None


def test_frozen_clips_have_no_period() -> None:
    frame = heart(np.zeros(1))
    assert periodicity(np.repeat(frame, 50, axis=0)) == (None, 0.0)
    flicker = np.random.default_rng(0).integers(-1, 2, (50, SIDE, SIDE))  # of a lossy codec
    assert periodicity((frame.clip(1, 254) + flicker).astype(np.uint8))[0] is None


@pytest.mark.parametrize("frames", [0, 1, 2, 7])
def test_too_few_frames_have_no_period(frames: int) -> None:
    assert periodicity(np.zeros((frames, SIDE, SIDE), np.uint8)) == (None, 0.0)


def test_a_known_frame_rate_rules_periods_out() -> None:
    clip = heart(beats(150, 5))
    found, _ = periodicity(clip, 20.0)
    assert found == pytest.approx(5, abs=1)  # 0.25 s
    assert (periodicity(clip, 100.0)[0] or 20) > 19  # 0.05 s is too short


def test_long_videos_are_read_in_their_middle() -> None:
    phase = np.concatenate([np.zeros(900), beats(1200, 40), np.zeros(900)])
    found, strength = periodicity(heart(phase, noise=2))
    assert found == pytest.approx(40, abs=1)
    assert strength >= PERIODIC


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=50), st.floats(0, 1))
def test_quantiles_are_those_of_numpy_to_the_bit(values: list[float], share: float) -> None:
    assert _quantile(np.array(values), share) == np.quantile(values, share)
