"""Reading all videos of a folder: each is found, opened once, and named."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from usucl._progress import Stage, stage
from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.identity import by_identity, same_name
from usucl.data.catalog.search import Skipped, find_videos
from usucl.data.catalog.summary import Summary, summarise
from usucl.data.video import Damaged, Video, VideoError, natural_key, open_video


def read_videos(
    root: Path, *, min_frames: int, damaged: Damaged
) -> tuple[list[VideoEntry], list[Skipped]]:
    """Returns the videos under ``root`` and what had to be skipped, both in natural order.

    Raises:
        ValueError: there is no usable video (skipped files are listed).
    """
    with stage("Reading videos", unit="videos") as bar:
        paths, skipped, others = find_videos(root)
        links = by_identity(paths)
        bar.update(total=len(links))
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            opened = list(pool.map(partial(_try_open, damaged=damaged, bar=bar), links))
    videos: list[Video] = []
    summaries: dict[Path, Summary | None] = {}
    for path, result in zip(links, opened, strict=True):
        if isinstance(result, VideoError):
            skipped.append(Skipped(path, result.reason))
            continue
        video, summaries[path] = result
        if len(video) < min_frames:
            reason = f"too short: {len(video)} of at least {min_frames} frames"
            skipped.append(Skipped(path, reason))
        else:
            videos.append(video)
    skipped = [item.as_utf8(root) for item in skipped]
    skipped.sort(key=lambda item: natural_key(str(item.path)))
    if not videos:
        raise ValueError(_nothing_usable(root, skipped, others))
    entries = [
        VideoEntry(
            name,
            video.path,
            len(video),
            video.frame_rate,
            links=tuple(links[video.path]),
            summary=summaries[video.path],
            _video=video,
        )
        for name, video in zip(
            _unique_ids(root, [video.path for video in videos]), videos, strict=True
        )
    ]
    return entries, skipped


def _try_open(
    path: Path, damaged: Damaged, bar: Stage
) -> tuple[Video, Summary | None] | VideoError:
    try:
        video = open_video(path, damaged=damaged)
        summary = summarise(video)
        video.thumbnails = None  # of all videos, they may not fit into memory
        return video, summary
    except VideoError as error:
        return error
    finally:
        bar.advance()


def _unique_ids(root: Path, paths: list[Path]) -> list[str]:
    bases = [same_name(p.absolute().name if p.is_dir() else p.stem) for p in paths]
    times = Counter(bases)
    relative = [path.relative_to(root).as_posix() for path in paths]
    alike = Counter(map(same_name, relative))
    # Of two paths that only look the same, each keeps the spelling of the file system.
    shown = [same_name(r) if alike[same_name(r)] == 1 else r for r in relative]
    return [base if times[base] == 1 else r for base, r in zip(bases, shown, strict=True)]


def _nothing_usable(root: Path, skipped: list[Skipped], others: Counter[str]) -> str:
    lines = [f"root must be a folder of videos, got no usable video in {root}"]
    lines += [f"  {item.path}: {item.reason}" for item in skipped]
    if others:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in others.most_common(5))
        lines.append(f"  files that are not videos: {kinds}")
    return "\n".join(lines)
