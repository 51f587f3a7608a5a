"""The memory of a process."""

from __future__ import annotations

from pathlib import Path


def own_memory(process: int | str = "self") -> int:
    """Returns the bytes that a process has in memory, without what is mapped from files."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))
