"""``usucl bank search``: the stored frames most similar to a given one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from usucl.cli.console import say, table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from usucl.cli.bank.query import Query
    from usucl.cli.bank.stored import StoredBank


def search(
    bank: Path,
    query: str | None = None,
    *,
    slot: int | None = None,
    k: int = 8,
    video: Sequence[str] = (),
    patient: Sequence[str] = (),
    label: Sequence[str] = (),
    time: Sequence[float] = (),
    exclude_video: Sequence[str] = (),
    exclude_patient: Sequence[str] = (),
    one_per_video: bool = False,
    run: Path | None = None,
    out: Path | None = None,
    json_: bool = False,
) -> None:
    """Find the frames of a bank that are most similar to a frame.

    Filters restrict what may be found before the search, so none that passes is missed.

    Args:
        bank: folder of the bank.
        query: an image, or a video, DICOM file or folder of frames with @ and a frame number (from
            0), such as case7.mp4@12 or loop.dcm@3; without a number, the middle frame.
        slot: a frame of the bank itself, in place of a query; it is not found again.
        k: frames to find.
        video: only frames of these videos.
        patient: only frames of these patients.
        label: only frames of videos with one of these labels.
        time: only frames between two times, LO HI, as fractions of their video's length.
        exclude_video: no frame of these videos, such as the query's own.
        exclude_patient: no frame of these patients.
        one_per_video: only the most similar frame of each video.
        run: run folder of the encoder; the one that made the bank by default.
        out: PNG file for a sheet of the frames found.
        json_: as JSON instead of a table.
    """
    import numpy as np

    from usucl.cli.bank.filters import Filters
    from usucl.cli.bank.query import query_of_file, query_of_slot
    from usucl.cli.bank.stored import StoredBank

    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if (query is None) == (slot is None):
        raise ValueError("expected either a QUERY or --slot, one of them")
    stored = StoredBank.open(bank)
    filters = Filters(video, patient, label, time, exclude_video, exclude_patient)
    passing = filters.passing(stored)
    if query is not None:
        asked = query_of_file(stored, query, run)
    else:
        assert slot is not None
        asked = query_of_slot(stored, slot)
    slots = np.flatnonzero(passing)
    slots = slots[slots != asked.slot]
    if not len(slots):
        raise ValueError("nothing is left to search: the slot itself alone passes the filters")
    found = _nearest(stored, asked, slots, k, one_per_video)
    if json_:
        results = [
            {"rank": rank, "similarity": s, **stored.describe(slot)}
            for rank, (slot, s) in enumerate(found, 1)
        ]
        answer = {"query": asked.name, "searched": len(slots), "neighbours": results}
        print(json.dumps(answer, indent=2))
    else:
        _show(stored, asked, found, len(slots))
    if out is not None:
        from usucl.cli.bank.sheets import search_sheet

        search_sheet(stored, asked, found, len(slots), out)
        if not json_:
            say(f"Sheet: {out}")


def _nearest(
    stored: StoredBank, query: Query, slots: NDArray[np.int64], k: int, one_per_video: bool
) -> list[tuple[int, float]]:
    """(slot, similarity), the most similar first; all of ``slots`` are considered."""
    import torch

    from usucl.losses import Frames

    everything = len(slots) == len(stored.bank) and not one_per_video
    bank = stored.bank if everything else stored.part(slots)
    device = query.embedding.device
    # a video of its own, so that every stored frame is of another
    own = torch.tensor([len(stored.videos)], device=device)
    anchor = Frames(query.embedding, own, torch.zeros(1, device=device))
    found = bank.hardest(anchor, len(slots) if one_per_video else min(k, len(slots)))
    pairs = zip(found.cross_index[0].tolist(), found.cross_similarity[0].tolist(), strict=True)
    nearest: list[tuple[int, float]] = []
    seen: set[int] = set()
    for index, similarity in pairs:
        if index < 0 or len(nearest) == k:
            break
        slot = int(slots[index])
        video = int(stored.video[slot])
        if not (one_per_video and video in seen):
            nearest.append((slot, similarity))
        seen.add(video)
    return nearest


def _show(
    stored: StoredBank, query: Query, found: Sequence[tuple[int, float]], searched: int
) -> None:
    rows = []
    for rank, (slot, similarity) in enumerate(found, 1):
        video, frame = stored.video_of(slot), stored.frame[slot]
        time = f"{stored.time[slot]:.2f}"
        about = (video.patient, video.label)
        rows.append((rank, f"{similarity:.4f}", slot, video.id, frame, time, *about))
    columns = ["rank", "similarity", "slot", "video", "frame", "time", "patient", "label"]
    numbers = ["rank", "similarity", "slot", "frame", "time"]
    table(columns, rows, title=f"Nearest to {query.name} of {searched:,} frames", numbers=numbers)
