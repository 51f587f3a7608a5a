"""The table of a run's videos: which are trained on, and which are held out."""

from __future__ import annotations

import json

from usucl.data.catalog.catalog import VideoCatalog
from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.identity import same_name

TRAIN, HELD_OUT = "train", "held_out"

SPLIT = ("video_id", "group", "label", "part")
PATIENT_KNOWN = "patient_known"
"""A further column of the split, yes or no; earlier versions did not write it."""
CLIPS = "clips"
"""A further column where there are sweeps: the ids of their clips, as a JSON list."""


def split_table(
    training: VideoCatalog, held_out: VideoCatalog
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns the columns and rows of the table."""
    columns: tuple[str, ...] = (*SPLIT, PATIENT_KNOWN, CLIPS)
    rows: list[tuple[str, ...]] = [
        (e.id, e.group, e.label or "", part, "yes" if e.patient_known else "no", _clips(e))
        for part, catalog in ((TRAIN, training), (HELD_OUT, held_out))
        for e in catalog
    ]
    if any(row[-1] for row in rows):
        return columns, rows
    return columns[:-1], [row[:-1] for row in rows]


def _clips(entry: VideoEntry) -> str:
    clips = [part.video.id for part in entry.parts]
    return json.dumps(clips, ensure_ascii=False) if clips else ""


def names_of(row: dict[str, str]) -> list[str]:
    """Returns the names of a video of the split, and of the clips of a sweep."""
    try:
        clips = json.loads(row.get(CLIPS) or "[]")
    except (ValueError, RecursionError):
        clips = []
    return [same_name(row["video_id"]), *(same_name(str(clip)) for clip in clips)]
