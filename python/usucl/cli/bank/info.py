"""``usucl bank info``: what a bank holds."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from usucl.cli.console import say, table


def info(bank: Path, *, json_: bool = False) -> None:
    """Show what is in a bank: frames, videos, patients, labels, and what it was made from.

    Args:
        bank: folder of the bank.
        json_: as JSON instead of a table.
    """
    facts = _facts(bank)
    if json_:
        print(json.dumps(facts, indent=2))
        return
    table(["", ""], _rows(facts), title=str(bank))
    if facts["unfinished"]:
        say("An unfinished build is there: the same 'usucl bank build' again goes on with it.")


def _facts(folder: Path) -> dict[str, Any]:
    from usucl.cli.bank.stored import UNFINISHED, StoredBank, open_bank

    bank = open_bank(folder)
    columns = bank.frames()
    description = json.loads((folder / "bank.json").read_bytes())
    files = [file for file in folder.iterdir() if file.is_file()]
    counts = columns.video[columns.video >= 0].unique(return_counts=True)[1].tolist()
    spread = {"least": min(counts), "median": median(counts), "most": max(counts)} if counts else {}
    facts: dict[str, Any] = {
        "frames": len(bank),
        "capacity": bank.capacity,
        "dim": bank.dim,
        "dtype": str(columns.embedding.dtype).removeprefix("torch."),
        "search": description.get("search"),
        "format": description.get("format"),
        "bytes": sum(file.stat().st_size for file in files),
        "frames_per_video": spread,
        "unfinished": (folder / UNFINISHED).is_dir(),
        "described": True,
    }
    try:
        stored = StoredBank.open(folder)
    except FileNotFoundError:  # a bank that was saved from Python
        patients = columns.patient.unique() if columns.patient is not None else []
        known = sum(int(patient) >= 0 for patient in patients)
        return {**facts, "described": False, "videos": len(counts), "patients": known}
    labels = Counter(video.label for video in stored.videos if video.label is not None)
    folds = Counter(video.fold for video in stored.videos if video.fold is not None)
    names = {key: stored.source.get(key) for key in ("run", "encoder", "data")}
    return {
        **facts,
        "videos": len(stored.videos),
        "patients": len({v.patient for v in stored.videos if v.patient is not None}),
        "labels": dict(sorted(labels.items())),
        "folds": {str(fold): count for fold, count in sorted(folds.items())},
        **names,
    }


def _rows(facts: dict[str, Any]) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("frames", f"{facts['frames']:,} in {facts['capacity']:,} slots"),
        ("embedding", f"{facts['dim']} x {facts['dtype']}"),
        ("search", facts["search"]),
        ("on disk", f"{facts['bytes'] / 2**20:.1f} MiB, format {facts['format']}"),
        ("videos", f"{facts['videos']:,}"),
    ]
    if spread := facts["frames_per_video"]:
        counts = f"{spread['least']} to {spread['most']}, median {spread['median']:g}"
        rows.append(("frames per video", counts))
    rows.append(("patients", facts["patients"] or "none known"))
    if not facts["described"]:
        return [*rows, ("made by", "something else than 'usucl bank build': no names are known")]
    for key, what in (("labels", "label"), ("folds", "fold")):
        counted = ", ".join(f"{name}: {count}" for name, count in facts[key].items())
        rows.append((f"videos by {what}", counted or "none known"))
    return [
        *rows,
        ("encoder", f"{facts['run']} (SHA-256 {facts['encoder'][:16]})"),
        ("data", facts["data"]),
    ]
