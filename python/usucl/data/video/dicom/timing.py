"""When the frames of a DICOM file were taken."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from pydicom import Dataset
from pydicom.multival import MultiValue

_FRAME_TIME = 0x00181063


def frame_times(dataset: Dataset, count: int) -> np.ndarray | None:
    """Returns the times of ``count`` frames in seconds after the first, None where unknown.

    A vector of times is passed over where it does not fit the frames, or where the frames are said
    to be ordered by a constant time.
    """
    steady = next(_intervals(dataset), None)
    steps = _numbers(dataset, "FrameTimeVector")
    if len(steps) == count - 1:
        steps = [0.0, *steps]  # that of the first frame was left out
    fits = count > 1 and len(steps) >= count and all(step > 0 for step in steps[1:count])
    if fits and not (steady and _FRAME_TIME in _pointers(dataset)):
        return np.cumsum([0.0, *steps[1:count]]) / 1000
    return None if steady is None else np.arange(count) * steady


def frame_rate(dataset: Dataset, times: np.ndarray | None) -> float | None:
    """Returns the mean number of frames per second, None where unknown."""
    if times is not None and len(times) > 1:
        return float((len(times) - 1) / times[-1])
    steady = next(_intervals(dataset), None)
    return None if steady is None else 1 / steady


def _intervals(dataset: Dataset) -> Iterator[float]:
    """Yields what the file states of the time between frames, in seconds, the surest first."""
    for milliseconds in _numbers(dataset, "FrameTime"):
        if milliseconds > 0:
            yield milliseconds / 1000
    for name in ("CineRate", "RecommendedDisplayFrameRate"):
        for rate in _numbers(dataset, name):
            if rate > 0:
                yield 1 / rate


def _numbers(dataset: Dataset, name: str) -> list[float]:
    """Returns the values of an element; none if one of them is no number."""
    try:
        value = dataset.get(name)
        values = value if isinstance(value, MultiValue) else [value]
        found = [float(number) for number in values if number not in (None, "")]
    except (TypeError, ValueError):
        return []
    return found if all(map(math.isfinite, found)) else []


def _pointers(dataset: Dataset) -> set[int]:
    """Returns the tags of the elements that the frames are ordered by."""
    pointer = dataset.get("FrameIncrementPointer")
    if not pointer:
        return set()
    return {int(tag) for tag in (pointer if isinstance(pointer, MultiValue) else [pointer])}
