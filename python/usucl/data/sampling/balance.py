"""Which videos a step draws from, so that videos, patients or frames are drawn equally often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from usucl.data.sampling.candidates import VideoTraits

Balance = Literal["video", "patient", "frame"]


def generator(*key: int) -> np.random.Generator:
    """Returns a generator that depends on nothing but ``key`` (non-negative integers)."""
    return np.random.default_rng(key)


def check_balance(balance: str) -> None:
    """Raises ValueError if there is no such balance."""
    if balance not in get_args(Balance):
        raise ValueError(f"balance must be one of {', '.join(get_args(Balance))}, got {balance!r}")


def most_videos(balance: Balance, num_frames: Sequence[int], traits: VideoTraits | None) -> int:
    """Returns how many videos a step can have: each has another video or, balanced so, patient."""
    return len(_videos_by_patient(num_frames, traits)) if balance == "patient" else len(num_frames)


def taking_turns(available: int, count: int, seed: int, epoch: int, step: int) -> np.ndarray:
    """Returns int64 [count]: the step's part of a permutation, which wraps around in the last."""
    steps = -(-available // count)
    order = generator(seed, epoch, step // steps, 1).permutation(available)
    return np.resize(order, steps * count).reshape(steps, count)[step % steps]


def drawn_videos(
    balance: Balance,
    num_frames: Sequence[int],
    traits: VideoTraits | None,
    count: int,
    *,
    seed: int,
    epoch: int,
    step: int,
) -> np.ndarray:
    """Returns int64 [count]: the distinct videos of a step.

    Args:
        balance: ``"video"`` and ``"patient"`` take turns, the videos of a patient as well;
            ``"frame"`` draws each video with a probability in proportion to its length, which a
            video cannot exceed that is longer than its share of the step.
        num_frames: lengths of the videos.
        traits: has the patients; a video of an unknown patient has one of its own.
        count: at most :func:`most_videos`.
        seed, epoch, step: what the draw depends on.
    """
    if balance == "video":
        return taking_turns(len(num_frames), count, seed, epoch, step)
    if balance == "frame":
        return _in_proportion(num_frames, count, generator(seed, epoch, step, 0, 2))
    videos = _videos_by_patient(num_frames, traits)
    turn = step // -(-len(videos) // count)
    chosen = []
    for patient in taking_turns(len(videos), count, seed, epoch, step):
        own = videos[patient]
        round_, place = divmod(turn, len(own))
        chosen.append(own[generator(seed, epoch, round_, patient, 3).permutation(len(own))[place]])
    return np.array(chosen, dtype=np.int64)


def _videos_by_patient(num_frames: Sequence[int], traits: VideoTraits | None) -> list[np.ndarray]:
    if traits is None:
        raise ValueError("traits must tell the patients where the balance is 'patient', got None")
    videos: dict[tuple[bool, int], list[int]] = {}
    for video, patient in enumerate(traits.patient.tolist()):
        known = patient >= 0
        videos.setdefault((known, patient if known else video), []).append(video)
    return [np.array(own) for own in videos.values()]


def _in_proportion(num_frames: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws distinct videos by systematic sampling, which has exactly the wanted probabilities."""
    chance = _chances(np.asarray(num_frames, dtype=np.float64), count)
    order = rng.permutation(len(chance))
    ends = np.cumsum(chance[order])
    ends *= count / ends[-1]
    ends[-1] = np.inf
    return order[np.searchsorted(ends, rng.random() + np.arange(count), side="right")]


def _chances(length: np.ndarray, count: int) -> np.ndarray:
    """Returns probabilities of sum ``count``, in proportion to ``length`` as far as 1 allows."""
    certain = np.zeros(len(length), dtype=bool)
    while True:
        left = count - certain.sum()
        chance = np.where(certain, 1.0, left * length / max(length[~certain].sum(), 1.0))
        above = ~certain & (chance >= 1.0)
        if not above.any():
            return chance
        certain |= above
