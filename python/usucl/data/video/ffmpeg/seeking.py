"""Key frames that frames can be reached from, once that is known to give the same frames.

Seeking goes wrong without a word in files with open groups of pictures, edit lists or odd times, so
key frames are tried when a video is opened. As what FFmpeg finds depends on what it read before,
the file is opened again for every key frame, then and later.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from usucl.data.video.base import VideoError
from usucl.data.video.ffmpeg.stream import Fingerprint, KeyFrame, fingerprint, opened_stream

_WORTH = 64  # frames of a video; shorter ones are as soon read from the start
_APART = 8  # frames between key frames that are kept: nearer ones save less than they cost
_MOST = 64  # key frames that are kept
_OPENING = 24  # frames that could be decoded while a file is opened at a key frame
_BACK = 3  # frames; where places are guessed, only what lies before them is found


def is_worth_seeking(count: int) -> bool:
    """Returns whether a video of so many frames is ever decoded from a key frame."""
    return count >= _WORTH


def reliable_key_frames(
    path: Path, keys: Sequence[KeyFrame], prints: Sequence[Fingerprint]
) -> tuple[KeyFrame, ...]:
    """Returns key frames that decoding can start at; none if one of them gives other frames.

    Args:
        path: the file.
        keys: all key frames, in their order.
        prints: those of every frame, as decoded from the start.
    """
    stamps = [frame.stamp for frame in prints if frame.stamp is not None]
    if not is_worth_seeking(len(prints)) or len(set(stamps)) < len(prints):
        return ()
    apart = max(_APART, -(-len(prints) // _MOST))
    chosen: list[KeyFrame] = []
    for key in keys:
        if key.number >= (chosen[-1].number if chosen else 0) + apart:
            chosen.append(key)
    reliable: list[KeyFrame] = []
    back = 0
    for number, key in enumerate(chosen, 1):
        end = chosen[number].number if number < len(chosen) else len(prints)
        meant = prints[key.number : end]
        if back or not _gives(path, key, meant):
            back = _BACK
            key = key._replace(place=stamps[key.number - back])
            if not _gives(path, key, meant):
                return ()
        reliable.append(key)
    return tuple(reliable)


def _gives(path: Path, key: KeyFrame, prints: Sequence[Fingerprint]) -> bool:
    """Returns whether decoding from a key frame gives the frames of these fingerprints."""
    try:
        with opened_stream(path) as stream:
            found = islice(stream.frames_from(key), len(prints))
            return [fingerprint(frame) for frame in found] == prints
    except VideoError:
        return False


def frames_at(
    path: Path, keys: Sequence[KeyFrame], indices: Sequence[int], *, damaged: bool
) -> Iterator[tuple[int, Any]]:
    """Yields ``indices``, which increase, with their frames; ends early where a frame is gone.

    What is decoded from a key frame is known to be right up to the next one only.

    Raises:
        VideoError: the file cannot be read any more.
    """
    for key, wanted in _runs(keys, indices):
        with opened_stream(path, damaged=damaged) as stream:
            frames = stream.frames_from(key) if key else stream.frames()
            position = key.number if key else 0
            for index in wanted:
                frame = next(islice(frames, index - position, None), None)
                if frame is None:
                    return
                position = index + 1
                yield index, frame


def _runs(
    keys: Sequence[KeyFrame], indices: Sequence[int]
) -> list[tuple[KeyFrame | None, list[int]]]:
    """Returns which frames to decode from which key frame, or from the start for None."""
    starts: list[KeyFrame | None] = [None, *keys]
    begins = [0, *(key.number for key in keys)]
    runs: dict[int, list[int]] = {}
    for index in indices:
        runs.setdefault(bisect_right(begins, index) - 1, []).append(index)
    cost = sum(run[-1] - begins[start] + _OPENING for start, run in runs.items())
    if cost > indices[-1]:
        return [(None, list(indices))]
    return [(starts[start], run) for start, run in runs.items()]
