"""The search: filters by video, patient, label and time, and the most similar frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from usucl._spelling import did_you_mean
from usucl.bank import NegativeBank
from usucl.gallery.contents import Contents
from usucl.gallery.query import Query
from usucl.losses import Frames


class Match(NamedTuple):
    """The slot of a stored frame, and its cosine similarity to the query."""

    slot: int
    similarity: float


class Found(NamedTuple):
    """The result of a search.

    Attributes:
        query: the frame that was searched for.
        searched: number of stored frames that passed the filters.
        matches: the matches, the most similar first.
    """

    query: Query
    searched: int
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class Filters:
    """Conditions on a frame; an empty filter lets everything pass.

    ``time`` is (lo, hi), both inclusive, as fractions of a video's length.
    """

    video: Sequence[str] = ()
    patient: Sequence[str] = ()
    label: Sequence[str] = ()
    time: Sequence[float] = ()
    exclude_video: Sequence[str] = ()
    exclude_patient: Sequence[str] = ()

    def passing(self, contents: Contents) -> NDArray[np.bool_]:
        """Returns whether each slot passes, ``[M]``.

        Raises:
            ValueError: a name is not in the bank, the times are not an interval, or nothing passes.
        """
        of_video: dict[str, list[str | None]] = {
            "video": [video.id for video in contents.videos],
            "patient": [video.patient for video in contents.videos],
            "label": [video.label for video in contents.videos],
        }
        steps: list[tuple[str, NDArray[np.bool_]]] = []
        for option, kind, wanted in (
            ("video", "video", self.video),
            ("patient", "patient", self.patient),
            ("label", "label", self.label),
            ("exclude_video", "video", self.exclude_video),
            ("exclude_patient", "patient", self.exclude_patient),
        ):
            if wanted:
                _check_names(option, kind, wanted, {n for n in of_video[kind] if n is not None})
                named = np.array([value in wanted for value in of_video[kind]])[contents.video]
                steps.append((option, ~named if option.startswith("exclude") else named))
        if self.time:
            lo, hi = _interval(self.time)
            steps.append(("time", (lo <= contents.time) & (contents.time <= hi)))
        passing = np.ones(len(contents.video), dtype=bool)
        counts = [f"{len(passing)} frames"]
        for option, passes in steps:
            passing &= passes
            counts.append(f"{int(passing.sum())} after {option}=")
        if not passing.any():
            raise ValueError(f"nothing is left to search: {', '.join(counts)}")
        return passing


def _check_names(option: str, kind: str, wanted: Sequence[str], known: set[str]) -> None:
    if not known:
        raise ValueError(f"{option}: no {kind} is known for any frame in the bank")
    for name in wanted:
        if name not in known:
            raise ValueError(f"{option}: the bank has no {kind} {name!r}{_near(name, known)}")


def _near(name: str, known: set[str]) -> str:
    """Returns a question for the known names most like this one, or all of them if few."""
    if near := did_you_mean(name, known):
        return near
    return f"; it has {', '.join(sorted(known))}" if len(known) <= 8 else ""


def _interval(time: Sequence[float]) -> tuple[float, float]:
    if len(time) != 2 or not 0 <= time[0] <= time[1] <= 1:
        given = " ".join(f"{t:g}" for t in time)
        raise ValueError(f"time must be LO HI with 0 <= LO <= HI <= 1, got {given}")
    return time[0], time[1]


def nearest(
    bank: NegativeBank,
    contents: Contents,
    query: Query,
    slots: NDArray[np.int64],
    k: int,
    one_per_video: bool,
) -> tuple[Match, ...]:
    """Finds the ``k`` most similar frames; all of ``slots`` are searched, so none is missed."""
    everything = len(slots) == len(bank) and not one_per_video
    searched = bank if everything else subset(bank, slots)
    device = bank.device
    # The query has a video of its own, so that every stored frame is from another video.
    own = torch.tensor([len(contents.videos)], device=device)
    anchor = Frames(query.embedding.to(device), own, torch.zeros(1, device=device))
    found = searched.hardest(anchor, len(slots) if one_per_video else min(k, len(slots)))
    pairs = zip(found.cross_index[0].tolist(), found.cross_similarity[0].tolist(), strict=True)
    matches: list[Match] = []
    seen: set[int] = set()
    for index, similarity in pairs:
        if index < 0 or len(matches) == k:
            break
        slot = int(slots[index])
        video = int(contents.video[slot])
        if not (one_per_video and video in seen):
            matches.append(Match(slot, similarity))
        seen.add(video)
    return tuple(matches)


def subset(
    bank: NegativeBank, slots: NDArray[np.int64], group: NDArray[np.int64] | None = None
) -> NegativeBank:
    """Returns an exact bank of these slots, in this order; ``group`` replaces the video."""
    columns = bank.frames()
    index = torch.from_numpy(slots).to(bank.device)
    video = columns.video[index] if group is None else torch.from_numpy(group).to(bank.device)
    part = NegativeBank(len(slots), bank.dim, device=bank.device, dtype=bank.dtype)
    part.enqueue(Frames(columns.embedding[index], video, columns.time[index]))
    return part
