"""Whether the frames of a video repeat, as they do with the heart or with breathing.

Two frames one period apart are alike, and those in between are not. This is read from the
differences between all pairs of frames, the temporal self-similarity matrix, as Cutler and Davis
(2000) do for motion in general, image-based gating does for the heart, and RepNet (2020) learns to.
Its diagonals, averaged, nominate periods; every frame then votes on them, so that a motion back and
forth, which brings back only the frames around its turning point, is none.
"""

from __future__ import annotations

import numpy as np

PERIODIC = 0.4
"""Least strength that is called periodic. Steady sweeps and noise have less than 0.2. In 222 clips
of lungs, regular breathing has 0.4 to 0.95; with less it is not regular."""

FEWEST_FRAMES = 8
MOST_FRAMES = 1024  # of a longer video, those in its middle
STILL = 0.05  # grey levels squared: differences of this size are none
_CONSISTENT = 0.3  # of the frames may be repeated less well than the strength says
_SAME_STRENGTH = 0.85  # of periods nearly as strong as the strongest, the shortest counts
_DEEP = 0.5  # of the deepest valley: less is no candidate
_CANDIDATES = 12


def periodicity(
    thumbnails: np.ndarray, frame_rate: float | None = None
) -> tuple[float | None, float]:
    """Returns the period of a video in frames, None if it has none, and its strength.

    A period is at least 2 frames long and is there at least twice. For each frame, the mean
    squared difference to the frame one period later is divided by the mean of those that both have
    to the frames in the middle half of the period. The strength is 1 minus this ratio, as at least
    70 % of the frames reach it: 1 is exact repetition.

    Args:
        thumbnails: uint8 [n, h, w], all frames in grey.
        frame_rate: in Hz; where it is known, periods below 0.2 s and above 20 s, which neither a
            heart nor breathing has, do not count.

    Returns:
        The period in frames, to a fraction of one, if the strength is at least ``PERIODIC``; and
        the strength of the best period, in [0, 1].
    """
    n = min(len(thumbnails), MOST_FRAMES)
    if n < FEWEST_FRAMES:
        return None, 0.0
    pixels = _pixels(np.asarray(thumbnails))
    shortest, longest = 2.0, n / 2
    if frame_rate is not None and frame_rate > 0:
        shortest, longest = max(shortest, 0.2 * frame_rate), min(longest, 20 * frame_rate)
    candidates = {k: v for k, v in _candidates(pixels).items() if shortest <= v <= longest}
    if not candidates:
        return None, 0.0
    squares = (pixels**2).sum(1)
    difference = squares[:, None] + squares - 2 * (pixels @ pixels.T)
    difference = np.maximum(difference, 0).astype(np.float64) / pixels.shape[1]
    sums = np.zeros((n, n + 1))
    np.cumsum(difference, axis=1, out=sums[:, 1:])
    strengths = {lag: _strength(difference, sums, lag) for lag in candidates}
    best = max(strengths.values())
    enough = min(best, _SAME_STRENGTH * best)
    lag, strength = next(item for item in strengths.items() if item[1] >= enough)
    if strength < PERIODIC:
        return None, max(0.0, strength)
    return candidates[lag], strength


def _pixels(frames: np.ndarray) -> np.ndarray:
    """Returns float32 [n, pixels] of half the height and width, which takes away noise and work."""
    start = max(0, (len(frames) - MOST_FRAMES) // 2)
    frames = frames[start : start + MOST_FRAMES]
    height, width = (side // 2 * 2 for side in frames.shape[1:])
    even = frames[:, :height, :width]
    rows = even[:, ::2].astype(np.uint16) + even[:, 1::2]  # sums are exact, and fast in this order
    pixels = (rows[..., ::2] + rows[..., 1::2]).reshape(len(frames), -1) / np.float32(4)
    return pixels - pixels.mean(0)


def _candidates(pixels: np.ndarray) -> dict[int, float]:
    """Returns distances in time at which frames differ less, on average, than around them.

    The shortest comes first. The values are the same distances to a fraction of a frame.
    """
    n = len(pixels)
    time = np.linspace(-1, 1, n, dtype=np.float32)[:, None]
    steady = pixels - time * ((time * pixels).sum(0) / (time**2).sum())
    # Products of all pairs of frames, summed by distance: an autocorrelation, taken by FFT.
    spectrum = np.fft.rfft(steady, 2 * n, axis=0)
    products = np.fft.irfft((spectrum.real**2 + spectrum.imag**2).sum(1), 2 * n)[:n]
    squares = np.concatenate([[0.0], np.cumsum((steady.astype(np.float64) ** 2).sum(1))])
    lags = np.arange(1, min(n // 2 + 2, n))
    total = squares[n - lags] + squares[n] - squares[lags] - 2 * products[lags]
    mean = np.maximum(total, 0) / (n - lags) / pixels.shape[1]
    depth = 1 - mean / np.maximum(np.maximum.accumulate(mean), STILL)
    inner = np.arange(1, len(mean) - 1)
    valleys = inner[(mean[inner] < mean[inner - 1]) & (mean[inner] <= mean[inner + 1])]
    deep = valleys[depth[valleys] >= _DEEP * depth[valleys].max(initial=0)]
    return {
        int(lags[i]): int(lags[i]) + _lowest(*mean[i - 1 : i + 2].tolist())
        for i in deep[:_CANDIDATES]
    }


def _strength(difference: np.ndarray, sums: np.ndarray, lag: int) -> float:
    """Returns how well frames are repeated after ``lag``, from the sums of the rows before each."""
    first = np.arange(len(difference) - lag)
    last = first + lag
    margin = (lag + 1) // 4 if lag > 3 else 1
    begin, end = first + margin, last - margin + 1
    between = sums[first, end] - sums[first, begin] + sums[last, end] - sums[last, begin]
    between = between / (2 * (end - begin))
    votes = 1 - (difference[first, last] + STILL) / (between + STILL)
    return _quantile(votes, _CONSISTENT)


def _quantile(values: np.ndarray, share: float) -> float:
    """Returns the bits of ``np.quantile``, which takes 20 times as long for a few values."""
    ordered = np.sort(values)
    whole, part = divmod(share * (len(ordered) - 1), 1)
    left, right = ordered[int(whole)], ordered[min(int(whole) + 1, len(ordered) - 1)]
    step = right - left
    return float(left + step * part if part < 0.5 else right - step * (1 - part))


def _lowest(left: float, middle: float, right: float) -> float:
    """Returns where a parabola through three values one apart has its lowest point."""
    bend = left - 2 * middle + right
    return min(max(0.5 * (left - right) / bend, -0.5), 0.5) if bend > 0 else 0.0
