"""Videos that look the same on both sides of a split, which make any figure too good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from usucl.data import VideoEntry
from usucl.data.inspection.duplicates import Duplicate, duplicates_across
from usucl.evaluation.schema import NearDuplicate


def near_duplicates(
    entries: Sequence[VideoEntry], held_out: Sequence[bool]
) -> tuple[NearDuplicate, ...]:
    """Returns the pairs that are in pretraining and held out, or in two folds of the probes.

    A sweep is looked at clip by clip. Perceptual hashes of a few frames are compared, whatever
    their size and brightness; copies that begin or end at another frame are not found.

    Args:
        entries: the videos.
        held_out: whether pretraining saw neither the video nor its patient, one per video.
    """
    clips = [(c, i) for i, e in enumerate(entries) for c in _clips(e)]
    only = [clip for clip, _ in clips]
    seen = duplicates_across(only, [held_out[i] for _, i in clips])
    labelled = [(c, i) for c, i in clips if entries[i].label or entries[i].frame_labels]
    fitted = [clip for clip, _ in labelled]
    folds = duplicates_across(fitted, [entries[i].fold for _, i in labelled])
    return (
        *(_named(only, pair, "pretraining") for pair in seen),
        *(_named(fitted, pair, "folds") for pair in folds),
    )


def _clips(entry: VideoEntry) -> Sequence[VideoEntry]:
    return [part.video for part in entry.parts] or [entry]


def _named(
    clips: Sequence[VideoEntry], pair: Duplicate, apart: Literal["pretraining", "folds"]
) -> NearDuplicate:
    return NearDuplicate(
        video=clips[pair.video].id,
        other=clips[pair.other].id,
        bits=pair.bits,
        equal=pair.equal,
        apart=apart,
    )
