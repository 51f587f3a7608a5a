"""The folder of stored frames: names that change with what is stored, and removal of the oldest."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from usucl._environment import cache_folder
from usucl._files import size_in_words
from usucl.data.catalog.scanning.stamp import stamp_of
from usucl.data.video import Video, video_facts
from usucl.data.video.stored import SUFFIX

LIMIT = 50.0  # GB of all stored frames, unless USUCL_STORE_GB says otherwise
SPARE = 10**9  # bytes of the disk that are left free
OLD = 24 * 3600  # seconds after which an unfinished file is taken for left behind


def store_folder() -> Path | None:
    """Returns the folder of stored frames in the cache, None if there is no cache."""
    cache = cache_folder()
    return None if cache is None else cache / "frames"


def most_bytes(needed: int) -> int:
    """Returns how large all stored frames together may become where one run needs ``needed``.

    Raises:
        ValueError: ``USUCL_STORE_GB`` is not a number of at least 0.
    """
    text = os.environ.get("USUCL_STORE_GB", "")
    if not text:
        return max(needed, int(LIMIT * 1e9))
    try:
        if (limit := float(text)) >= 0:
            return int(limit * 1e9)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"USUCL_STORE_GB must be a number of at least 0, got {text!r}")


def place(folder: Path, video: Video, short_side: int) -> Path | None:
    """Returns where the resized frames of a video are stored; None if it cannot be told.

    The name depends on the path, size and modification time of each of its files, on what opening
    it found out, on the short side, and on the libraries that decode and resize.
    """
    files = _stamps(video)
    if not all(key for _, key in files):
        return None
    about = [files, _facts(video), short_side, _versions()]
    name = hashlib.sha256(json.dumps(about, default=str).encode(errors="surrogateescape"))
    key = name.hexdigest()[:40]
    return folder / key[:2] / f"{key}{SUFFIX}"


def _stamps(video: Video) -> list[tuple[str, str | None]]:
    """Returns path and stamp of a video, or of each clip of a sweep; None for one that is gone."""
    clips: Sequence[Video] = getattr(video, "parts", ()) or (video,)
    stamps = [(clip.path.resolve(), stamp_of(clip.path)) for clip in clips]
    return [(str(path), stamp and stamp.key) for path, stamp in stamps]


def _facts(video: Video) -> Any:
    return video_facts(video) if not getattr(video, "parts", ()) else [len(video)]


@functools.cache
def _versions() -> list[str]:
    """Returns the versions that may change a pixel."""
    return [importlib.metadata.version(name) for name in ("av", "pillow", "torch", "torchvision")]


def mark_as_used(file: Path) -> None:
    """Makes a file the last to be removed."""
    with contextlib.suppress(OSError):
        os.utime(file)


def make_room(folder: Path, needed: int, keep: Collection[Path]) -> str | None:
    """Removes the least recently used files until ``needed`` bytes fit beside those to keep.

    Returns:
        Why they do not fit, None if they do.

    Raises:
        OSError: the folder cannot be made or listed.
        ValueError: see :func:`most_bytes`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = set(keep)
    found = list(_stored(folder))
    size = sum(about.st_size for _, about in found)
    limit = most_bytes(needed + sum(about.st_size for file, about in found if file in kept))
    oldest = sorted((about.st_mtime, file, about) for file, about in found if file not in kept)
    while True:
        free = max(0, shutil.disk_usage(folder).free - SPARE)
        if size + needed <= limit and needed <= free:
            return None
        if not oldest:
            break
        _, file, about = oldest.pop(0)
        with contextlib.suppress(OSError):
            file.unlink()
            size -= about.st_size
    if needed > free:
        return f"only {size_in_words(free)} of the disk of {folder} can be used"
    return f"{folder} may hold {limit / 1e9:g} GB, by USUCL_STORE_GB"


def _stored(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yields the files of the folder, and removes those that nobody finished."""
    for file in (*folder.glob(f"??/*{SUFFIX}"), *folder.glob("??/.*.tmp"), *folder.glob("*.lock")):
        with contextlib.suppress(OSError):
            about = file.stat()
            if file.suffix == SUFFIX:
                yield file, about
            elif time.time() - about.st_mtime > OLD:
                file.unlink()


@contextmanager
def one_at_a_time(folder: Path, name: str) -> Iterator[None]:
    """Waits while another process of this machine is in the same body with the same name.

    Where files cannot be locked, nobody waits, and work is done twice.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / f"{name}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
