"""The times of frames in one unit, and where in time the frames of a video lie."""

from __future__ import annotations

from typing import Literal

import numpy as np

from usucl.data.catalog.catalog import VideoCatalog

TimeUnit = Literal["fraction", "frames", "seconds"]
UNIT_WORDS = {"fraction": "share of the video", "frames": "frames", "seconds": "seconds"}
MISSING = -1  # in place of the index of a frame where there is none
MOST_NAMES = 20  # of videos, in a message
UNEVEN = 0.5  # frames: videos whose frames are nowhere farther from even spacing count as even


class Clock:
    """Times of frames in one unit.

    Attributes:
        frames_per_unit: float64 [V], frames per unit of time in each video (on average where the
            frame rate varies).
        positions: per video the times of its frames in frames, float64 [n]; None where the frames
            are evenly spaced, and in units that do not know better.
    """

    def __init__(self, catalog: VideoCatalog, unit: TimeUnit) -> None:
        lengths = np.array([entry.num_frames for entry in catalog], dtype=np.float64)
        self._seconds: list[np.ndarray | None] = [None] * len(lengths)
        if unit == "fraction":
            self.frames_per_unit = lengths
        elif unit == "frames":
            self.frames_per_unit = np.ones_like(lengths)
        elif unit == "seconds":
            unknown = [entry.id for entry in catalog if entry.frame_rate is None]
            if unknown:
                raise ValueError(
                    "time_unit must be 'fraction' or 'frames', because the frame rate is unknown "
                    f"for {len(unknown)} videos such as {unknown[0]}, got 'seconds' (they are "
                    f"{', '.join(unknown[:MOST_NAMES])}{', ...' * (len(unknown) > MOST_NAMES)})"
                )
            self.frames_per_unit = np.array([entry.frame_rate for entry in catalog], np.float64)
            self._seconds = [entry.open().times for entry in catalog]
        else:
            raise ValueError(f"time_unit must be 'fraction', 'frames' or 'seconds', got {unit!r}")
        self.positions = tuple(
            None if seconds is None else _position(seconds, rate)
            for seconds, rate in zip(self._seconds, self.frames_per_unit, strict=True)
        )

    def times(self, video: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """Returns the times of frames as float64 [N], NaN where the frame is missing."""
        times = frame / self.frames_per_unit[video]
        for i, (v, f) in enumerate(zip(video, frame, strict=True)):
            seconds = self._seconds[v]
            if seconds is not None:
                times[i] = seconds[f]
        times[frame == MISSING] = np.nan
        return times


def _position(seconds: np.ndarray, rate: float) -> np.ndarray | None:
    position = (np.asarray(seconds, dtype=np.float64) - seconds[0]) * rate
    even = np.linspace(0, position[-1], len(position))
    return None if np.abs(position - even).max() < UNEVEN else position


def patient_numbers(catalog: VideoCatalog) -> np.ndarray:
    """Returns int64 [V]: one number per known patient, -1 where unknown."""
    known = [entry.group for entry in catalog if entry.patient_known]
    number = {group: i for i, group in enumerate(dict.fromkeys(known))}
    return np.array(
        [number[entry.group] if entry.patient_known else -1 for entry in catalog], dtype=np.int64
    )
