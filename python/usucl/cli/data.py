"""``usucl data check``: shows what a folder of videos holds, before any training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from usucl.cli.console import say, table
from usucl.cli.parameters import Count, Data

if TYPE_CHECKING:
    from usucl.data import VideoCatalog

NOTHING_USABLE = 1
Damaged = Literal["skip", "keep"]


def check(data: Data, *, min_frames: Count = 2, damaged: Damaged = "skip") -> int:
    """List the videos of a folder, and the files that cannot be used, with reasons.

    The exit code is 1 if nothing can be used or the tables of labels contradict the videos.

    Args:
        data: folder of videos: folders of frames and video files, mixed and nested.
        min_frames: videos with fewer frames are left out.
        damaged: skip leaves out videos of which something is missing or broken, keep takes them.
    """
    from usucl.data import VideoCatalog

    try:
        catalog = VideoCatalog.scan(data, min_frames=min_frames, damaged=damaged)
    except ValueError as error:
        for line in str(error).splitlines():
            say(line, stderr=True)
        return NOTHING_USABLE
    _show(catalog)
    return 0


def _show(catalog: VideoCatalog) -> None:
    rows = []
    for entry in catalog:
        video = entry.open()
        rate = None if entry.frame_rate is None else f"{entry.frame_rate:.4g}"
        size = f"{video.width}x{video.height}"
        patient = entry.group if entry.patient_known else None
        rows.append((entry.id, entry.num_frames, size, rate, entry.label, patient, entry.fold))
    columns = ["video", "frames", "size", "Hz", "label", "patient", "fold"]
    used = [c for i, c in enumerate(columns) if any(row[i] is not None for row in rows)]
    kept = [[cell for c, cell in zip(columns, row, strict=True) if c in used] for row in rows]
    table(used, kept, title=str(catalog.root), numbers=["frames", "size", "Hz", "fold"])
    if catalog.skipped:
        skipped = [(item.path.relative_to(catalog.root), item.reason) for item in catalog.skipped]
        table(["left out", "reason"], skipped)
    damage = [(entry.id, reason) for entry in catalog if (reason := entry.open().damage)]
    if damage:
        table(["damaged, but taken", "reason"], damage)
    frames = sum(entry.num_frames for entry in catalog)
    labels = {entry.label for entry in catalog if entry.label}
    patients = {entry.group for entry in catalog if entry.patient_known}
    parts = [f"{len(catalog)} videos", f"{frames} frames", f"{len(catalog.skipped)} left out"]
    parts += [f"{len(damage)} damaged"] if damage else []
    parts += [f"{len(labels)} labels" if labels else "no labels: no probes in the evaluation"]
    parts += [f"{len(patients)} patients" if patients else "no patients: each video counts as one"]
    say(", ".join(parts))
