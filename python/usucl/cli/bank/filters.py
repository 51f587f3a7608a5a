"""Which frames of a bank may be found: by video, patient, label and time."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usucl.cli.bank.stored import StoredBank


@dataclass(frozen=True)
class Filters:
    """The options of the command; an empty one lets everything pass.

    ``time`` is (lo, hi), both inclusive, as fractions of a video's length.
    """

    video: Sequence[str] = ()
    patient: Sequence[str] = ()
    label: Sequence[str] = ()
    time: Sequence[float] = ()
    exclude_video: Sequence[str] = ()
    exclude_patient: Sequence[str] = ()

    def passing(self, stored: StoredBank) -> NDArray[np.bool_]:
        """Whether each slot passes, [M].

        Raises:
            ValueError: a name is not in the bank, the times are none, or nothing passes.
        """
        of_video: dict[str, list[str | None]] = {
            "video": [video.id for video in stored.videos],
            "patient": [video.patient for video in stored.videos],
            "label": [video.label for video in stored.videos],
        }
        steps: list[tuple[str, NDArray[np.bool_]]] = []
        for option, kind, wanted in (
            ("video", "video", self.video),
            ("patient", "patient", self.patient),
            ("label", "label", self.label),
            ("exclude-video", "video", self.exclude_video),
            ("exclude-patient", "patient", self.exclude_patient),
        ):
            if wanted:
                _check_names(option, kind, wanted, {n for n in of_video[kind] if n is not None})
                named = np.array([value in wanted for value in of_video[kind]])[stored.video]
                steps.append((option, ~named if option.startswith("exclude") else named))
        if self.time:
            lo, hi = _interval(self.time)
            steps.append(("time", (lo <= stored.time) & (stored.time <= hi)))
        passing = np.ones(len(stored.video), dtype=bool)
        counts = [f"{len(passing)} frames"]
        for option, passes in steps:
            passing &= passes
            counts.append(f"{int(passing.sum())} after --{option}")
        if not passing.any():
            raise ValueError(f"nothing is left to search: {', '.join(counts)}")
        return passing


def _check_names(option: str, kind: str, wanted: Sequence[str], known: set[str]) -> None:
    if not known:
        raise ValueError(f"{option}: no {kind} is known of any frame in the bank")
    for name in wanted:
        if name not in known:
            raise ValueError(f"{option}: the bank has no {kind} {name!r}{_near(name, known)}")


def _near(name: str, known: set[str]) -> str:
    """The known names most like this one, or all of them if they are few."""
    folded = {other.casefold(): other for other in sorted(known)}
    near = [folded[m] for m in difflib.get_close_matches(name.casefold(), folded, n=3)]
    if near:
        return f"; near it: {', '.join(near)}"
    return f"; it has {', '.join(sorted(known))}" if len(known) <= 8 else ""


def _interval(time: Sequence[float]) -> tuple[float, float]:
    if len(time) != 2 or not 0 <= time[0] <= time[1] <= 1:
        given = " ".join(f"{t:g}" for t in time)
        raise ValueError(f"time: expected LO HI with 0 <= LO <= HI <= 1, got {given}")
    return time[0], time[1]
