"""A catalogue of a hundred thousand files, scanned twice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.data_catalog import SHARES, STILLS, scan_alone, write_archive

STILL_SHARE = SHARES["png"] + SHARES["jpg"]
FILES_PER_VIDEO = 1 + (STILLS - 1) * STILL_SHARE


def run(folder: Path, files: int) -> tuple[dict[str, Any], list[str]]:
    """Returns what the scans took, and what they missed."""
    videos = max(1, round(files / FILES_PER_VIDEO))
    write_archive(folder / "archive", videos)
    scans = {name: scan_alone(folder / "archive", folder / "cache") for name in ("first", "again")}
    found = [
        f"the {name} scan has {scan['videos']} videos of {videos}, and left out {scan['skipped']}"
        for name, scan in scans.items()
        if (scan["videos"], scan["skipped"]) != (videos, 0)
    ]
    if scans["first"]["found"] != scans["again"]["found"]:
        found.append("the second scan finds something else than the first")
    counted = sum(path.is_file() for path in (folder / "archive").rglob("*"))
    shutil.rmtree(folder / "archive")
    return {"files": counted, "videos": videos, **scans}, found
