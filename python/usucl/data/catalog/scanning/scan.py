"""Reading all videos of a folder: each is found, opened unless it is known, and named."""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from usucl._progress import Stage, stage
from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.identity import by_identity, same_name, without_suffix
from usucl.data.catalog.patients import patient_in_file
from usucl.data.catalog.scanning.manifest import Manifest
from usucl.data.catalog.scanning.search import Candidate, Skipped, find_videos
from usucl.data.catalog.scanning.stamp import stamp_of
from usucl.data.catalog.summary import Summary, summarise
from usucl.data.video import (
    Damaged,
    Video,
    VideoError,
    natural_key,
    open_video,
    restore_video,
    video_facts,
)
from usucl.data.video.limits import DEFAULTS, limit

SAVE_EVERY = 60  # seconds: what a scan loses at most if its process is killed
# What fails for these reasons may succeed next time, though the file stays as it is.
_PASSING = [
    os.strerror(number)
    for number in (
        errno.EACCES,
        errno.EIO,
        errno.EMFILE,
        errno.ENOENT,
        errno.ENOMEM,
        errno.EPERM,
        errno.ESTALE,
        errno.ETIMEDOUT,
    )
] + ["MemoryError"]


class Opened(NamedTuple):
    """What opening a file or folder gave: a video with its summary, or why there is none."""

    video: Video | None
    summary: Summary | None = None
    reason: str = ""
    known: bool = False  # from the manifest


def read_videos(
    root: Path, manifest: Manifest, *, min_frames: int, damaged: Damaged
) -> tuple[list[VideoEntry], list[Skipped]]:
    """Returns the videos under ``root`` and what had to be skipped, both in natural order.

    Raises:
        ValueError: there is no usable video (skipped files are listed).
    """
    with stage("Reading videos", unit="videos") as bar:
        found = find_videos(root, manifest)
        candidates = {candidate.path: candidate for candidate in found.videos}
        links = by_identity({path: video.files for path, video in candidates.items()})
        opened = _open_all([candidates[path] for path in links], manifest, damaged, bar)
    skipped = found.skipped
    videos: list[tuple[Candidate, Video, Opened]] = []
    for path, result in zip(links, opened, strict=True):
        video = result.video
        if video is None:
            skipped.append(Skipped(path, result.reason))
        elif len(video) < min_frames:
            reason = f"too short: {len(video)} of at least {min_frames} frames"
            skipped.append(Skipped(path, reason))
        else:
            videos.append((candidates[path], video, result))
    skipped = [item.as_utf8(root) for item in skipped]
    skipped.sort(key=lambda item: natural_key(str(item.path)))
    if not videos:
        raise ValueError(_nothing_usable(root, skipped, found.others))
    ids = _unique_ids([candidate for candidate, _, _ in videos])
    entries = [
        VideoEntry(
            name,
            video.path,
            len(video),
            video.frame_rate,
            links=tuple(links[video.path]),
            summary=result.summary,
            file_patient=patient_in_file(video.patient),
            _video=video,
            _stamp=candidate.stamp.key if candidate.stamp and result.known else None,
        )
        for name, (candidate, video, result) in zip(ids, videos, strict=True)
    ]
    return entries, skipped


def _open_all(
    candidates: list[Candidate], manifest: Manifest, damaged: Damaged, bar: Stage
) -> list[Opened]:
    """Opens everything that the manifest does not know, and adds it there."""
    limits = " ".join(f"{name}={limit(name)}" for name in DEFAULTS)
    always, only = f"whole {limits}", f"{damaged} {limits}"  # what a whole video depends on
    opened = {c.name: known for c in candidates if (known := _recall(c, manifest, (always, only)))}
    unknown = [candidate for candidate in candidates if candidate.name not in opened]
    bar.restart(len(opened), len(candidates))
    bar.update(total=len(candidates))
    saved = time.monotonic()
    try:
        for candidate, result, contents in _in_threads(unknown, manifest, damaged, bar):
            opened[candidate.name] = result
            if _is_lasting(candidate, result):
                whole = result.video is not None and result.video.damage is None
                found = _found(result)
                manifest.put(
                    candidate.name, candidate.stamp, always if whole else only, found, contents
                )
            if time.monotonic() - saved > SAVE_EVERY:
                manifest.save(whole=False)
                saved = time.monotonic()
    except BaseException:
        manifest.save(whole=False)
        raise
    manifest.save(whole=True)
    return [opened[candidate.name] for candidate in candidates]


def _in_threads(
    candidates: list[Candidate], manifest: Manifest, damaged: Damaged, bar: Stage
) -> Iterator[tuple[Candidate, Opened, str | None]]:
    """Yields what opening each candidate gave, and a hash of its contents if that is needed."""
    if not candidates:
        return
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(partial(_try_open, manifest, damaged, bar), candidates)


def _try_open(
    manifest: Manifest, damaged: Damaged, bar: Stage, candidate: Candidate
) -> tuple[Candidate, Opened, str | None]:
    contents = manifest.contents(candidate.name, candidate.stamp)
    try:
        video = open_video(candidate.path, damaged=damaged)
        summary = summarise(video)
        video.thumbnails = None  # of all videos, they may not fit into memory
        return candidate, Opened(video, summary), contents
    except VideoError as error:
        return candidate, Opened(None, reason=error.reason), contents
    finally:
        bar.advance()


def _recall(candidate: Candidate, manifest: Manifest, conditions: Iterable[str]) -> Opened | None:
    """Returns what an earlier scan has found, None if it has not or that cannot be understood."""
    for condition in conditions:
        found = manifest.get(candidate.name, candidate.stamp, condition)
        if found is None:
            continue
        try:
            if "reason" in found:
                return Opened(None, reason=str(found["reason"]), known=True)
            video = restore_video(candidate.path, found["video"])
            return Opened(video, Summary.from_json(found["summary"]), known=True)
        except (KeyError, TypeError, ValueError):
            continue
    return None


def _found(result: Opened) -> dict[str, Any]:
    """Returns what :func:`_recall` makes the same result of, as JSON."""
    if result.video is None or result.summary is None:
        return {"reason": result.reason}
    return {"video": video_facts(result.video), "summary": result.summary.as_json()}


def _is_lasting(candidate: Candidate, result: Opened) -> bool:
    """Returns whether the result would be the same as long as the file is."""
    trouble = result.reason if result.video is None else result.video.damage
    if trouble is None:
        return True
    return not any(words in trouble for words in _PASSING) and (
        candidate.stamp == stamp_of(candidate.path)
    )


def _unique_ids(videos: list[Candidate]) -> list[str]:
    bases = [same_name(_base(video)) for video in videos]
    times = Counter(bases)
    relative = [video.name for video in videos]
    alike = Counter(map(same_name, relative))
    # Of two paths that only look the same, each keeps the spelling of the file system.
    shown = [same_name(r) if alike[same_name(r)] == 1 else r for r in relative]
    return [base if times[base] == 1 else r for base, r in zip(bases, shown, strict=True)]


def _base(video: Candidate) -> str:
    return video.path.absolute().name if video.is_folder else without_suffix(video.path).name


def _nothing_usable(root: Path, skipped: list[Skipped], others: Counter[str]) -> str:
    lines = [f"root must be a folder of videos, got no usable video in {root}"]
    lines += [f"  {item.path}: {item.reason}" for item in skipped]
    if others:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in others.most_common(5))
        lines.append(f"  files that are not videos: {kinds}")
    return "\n".join(lines)
