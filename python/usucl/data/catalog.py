"""What videos a folder holds, with their labels, patients and cross-validation folds."""

from __future__ import annotations

import csv
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from usucl.data.folds import assign_folds
from usucl.data.search import Skipped, find_videos
from usucl.data.video import Video, VideoError, natural_key, open_video

LABELS = "labels.csv"
FRAME_LABELS = "frame_labels.csv"


@dataclass(frozen=True)
class VideoEntry:
    """One usable video of a catalogue.

    Attributes:
        id: name of the folder or file, or its path relative to the root if another video has it.
        path: the folder or file.
        num_frames, frame_rate: as in ``Video``.
        label: the video's class, None where unknown.
        group: the patient (or source); the video's own id where unknown.
        patient_known: whether ``group`` was given.
        fold: cross-validation fold, None where not given.
        frame_labels: one class per frame, None where not given.
        source: where the video comes from, such as a hospital, None where not given.
    """

    id: str
    path: Path
    num_frames: int
    frame_rate: float | None
    label: str | None = None
    group: str = ""
    patient_known: bool = False
    fold: int | None = None
    frame_labels: tuple[str, ...] | None = None
    source: str | None = None
    _video: Video | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.id)

    def open(self) -> Video:
        """Returns the video, without decoding it a second time if a scan has done so."""
        return self._video if self._video is not None else open_video(self.path)


@dataclass(frozen=True)
class VideoCatalog:
    """The videos under a folder, in natural order, and those that had to be skipped."""

    root: Path
    entries: tuple[VideoEntry, ...]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[VideoEntry]:
        return iter(self.entries)

    @classmethod
    def scan(cls, root: str | Path, *, min_frames: int = 2) -> VideoCatalog:
        """Finds every video under ``root``: folders of images and video files, mixed and nested.

        Every video is decoded once, so everything in the catalogue can be read. Hidden files and
        folders and text files are passed over; files of other kinds are skipped with a reason. A
        folder that several links lead to counts once. Two tables directly in ``root`` are read if
        they exist: ``labels.csv`` (video_id, label, optionally patient or group, optionally fold)
        and ``frame_labels.csv`` (video_id, frame counted from 0, label). Their video_id is an
        entry's id or its path relative to the root, with or without the file's extension.

        Args:
            root: the folder.
            min_frames: videos with fewer frames are skipped.

        Raises:
            ValueError: ``root`` is not a folder or holds no usable video (skipped files are
                listed); a table lacks a column, names a video twice or ambiguously, or
                contradicts it.

        Warns:
            UserWarning: a table names unknown videos, or labels only some frames of a video.
        """
        root = Path(root)
        if not root.is_dir():
            raise ValueError(f"root must be a folder of videos, got {root}")
        paths, skipped, others = find_videos(root)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            opened = list(pool.map(_try_open, paths))
        videos: list[Video] = []
        for path, result in zip(paths, opened, strict=True):
            if isinstance(result, VideoError):
                skipped.append(Skipped(path, result.reason))
            elif len(result) < min_frames:
                reason = f"too short: {len(result)} of at least {min_frames} frames"
                skipped.append(Skipped(path, reason))
            else:
                videos.append(result)
        skipped = [item.as_utf8(root) for item in skipped]
        skipped.sort(key=lambda item: natural_key(str(item.path)))
        if not videos:
            raise ValueError(_nothing_usable(root, skipped, others))
        ids = _unique_ids(root, [video.path for video in videos])
        entries = tuple(
            VideoEntry(name, video.path, len(video), video.frame_rate, _video=video)
            for name, video in zip(ids, videos, strict=True)
        )
        known = _Names(root, entries, skipped)
        if (root / LABELS).is_file():
            entries = _with_labels(entries, root / LABELS, known)
        if (root / FRAME_LABELS).is_file():
            entries = _with_frame_labels(entries, root / FRAME_LABELS, known)
        return cls(root, entries, tuple(skipped))

    def with_folds(self, n: int = 5, seed: int = 0) -> VideoCatalog:
        """Returns the catalogue with a fold in [0, n) for every video, labels balanced.

        All videos of a patient are in one fold. Given folds keep their numbers; if they are all
        the same, they are ignored with a warning (see ``folds.assign_folds``).

        Raises:
            ValueError: a group's videos have different folds, or there are fewer groups than folds.
        """
        folds = assign_folds(
            [entry.group for entry in self.entries],
            [entry.label for entry in self.entries],
            [entry.fold for entry in self.entries],
            n=n,
            seed=seed,
        )
        entries = (replace(e, fold=fold) for e, fold in zip(self.entries, folds, strict=True))
        return replace(self, entries=tuple(entries))

    def split(self, held_out_folds: Iterable[int]) -> tuple[VideoCatalog, VideoCatalog]:
        """Returns (train, held out) by fold; the skipped files stay with the training part.

        Raises:
            ValueError: a video has no fold (call ``with_folds``), or one part would be empty.
        """
        held_out = set(held_out_folds)
        missing = [entry.id for entry in self.entries if entry.fold is None]
        if missing:
            raise ValueError(f"folds must be given: {_some(missing)} have none; call with_folds")
        parts = (
            tuple(e for e in self.entries if e.fold not in held_out),
            tuple(e for e in self.entries if e.fold in held_out),
        )
        if not all(parts):
            folds = sorted({e.fold for e in self.entries if e.fold is not None})
            raise ValueError(
                f"held_out_folds must be some, not all, of {folds}, got {sorted(held_out)}"
            )
        return replace(self, entries=parts[0]), replace(self, entries=parts[1], skipped=())


class _Names:
    """Finds the entry that a table means by a video_id."""

    def __init__(self, root: Path, entries: tuple[VideoEntry, ...], skipped: list[Skipped]) -> None:
        self._entries: dict[str, set[int]] = defaultdict(set)
        for i, entry in enumerate(entries):
            for name in (entry.id, *_names(root, entry.path)):
                self._entries[name].add(i)
        self._skipped = {name for item in skipped for name in _names(root, item.path)}

    def index(self, name: str, table: Path) -> int | None:
        found = self._entries.get(name, set())
        if len(found) > 1:
            raise ValueError(
                f"{table.name}: video_id {name!r} fits {len(found)} videos; "
                "give the path relative to the folder"
            )
        return next(iter(found), None)

    def was_skipped(self, name: str) -> bool:
        return name in self._skipped


def _names(root: Path, path: Path) -> tuple[str, ...]:
    relative = path.relative_to(root)
    names = {path.name, relative.as_posix()}
    if path.is_file():
        names |= {path.stem, relative.with_suffix("").as_posix()}
    return tuple(names)


def _try_open(path: Path) -> Video | VideoError:
    try:
        return open_video(path)
    except VideoError as error:
        return error


def _unique_ids(root: Path, paths: list[Path]) -> list[str]:
    def base(path: Path) -> str:
        return path.absolute().name if path.is_dir() else path.stem

    times = Counter(base(path) for path in paths)
    return [base(p) if times[base(p)] == 1 else p.relative_to(root).as_posix() for p in paths]


def _nothing_usable(root: Path, skipped: list[Skipped], others: Counter[str]) -> str:
    lines = [f"root must be a folder of videos, got no usable video in {root}"]
    lines += [f"  {item.path}: {item.reason}" for item in skipped]
    if others:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in others.most_common(5))
        lines.append(f"  files that are not videos: {kinds}")
    return "\n".join(lines)


def _rows(table: Path, required: tuple[str, ...]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yields (line number, row) of a CSV file, values stripped of blanks, absent ones empty."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in required if name not in columns]
        if missing:
            raise ValueError(
                f"{table.name} must have the columns {', '.join(required)}; "
                f"missing: {', '.join(missing)}"
            )
        reader.fieldnames = columns
        for row in reader:
            yield reader.line_num, {k: (v or "").strip() for k, v in row.items() if k is not None}


def _with_labels(
    entries: tuple[VideoEntry, ...], table: Path, known: _Names
) -> tuple[VideoEntry, ...]:
    labelled = list(entries)
    seen: dict[int, int] = {}
    unknown: list[str] = []
    for line, row in _rows(table, ("video_id", "label")):
        index = known.index(row["video_id"], table)
        if index is None:
            if not known.was_skipped(row["video_id"]):
                unknown.append(row["video_id"])
            continue
        if index in seen:
            raise ValueError(
                f"{table.name}: lines {seen[index]} and {line} both name {entries[index].id!r}"
            )
        seen[index] = line
        patient = row.get("patient") or row.get("group")
        labelled[index] = replace(
            entries[index],
            label=row["label"] or None,
            group=patient or entries[index].id,
            patient_known=bool(patient),
            fold=_index(table, line, "fold", row["fold"]) if row.get("fold") else None,
            source=row.get("source") or None,
        )
    _warn_unknown(table, unknown)
    return tuple(labelled)


def _with_frame_labels(
    entries: tuple[VideoEntry, ...], table: Path, known: _Names
) -> tuple[VideoEntry, ...]:
    labels: dict[int, dict[int, str]] = defaultdict(dict)
    unknown: dict[str, None] = {}
    for line, row in _rows(table, ("video_id", "frame", "label")):
        index = known.index(row["video_id"], table)
        if index is None:
            if not known.was_skipped(row["video_id"]):
                unknown[row["video_id"]] = None
            continue
        frame = _index(table, line, "frame", row["frame"])
        if frame >= entries[index].num_frames:
            raise ValueError(
                f"{table.name}: line {line} labels frame {frame} of {entries[index].id!r}, "
                f"which has {entries[index].num_frames} frames"
            )
        if labels[index].setdefault(frame, row["label"]) != row["label"]:
            raise ValueError(
                f"{table.name}: line {line} contradicts an earlier label of frame {frame} "
                f"of {entries[index].id!r}"
            )
    _warn_unknown(table, list(unknown))
    labelled = list(entries)
    partial = []
    for index, of_frame in labels.items():
        n = entries[index].num_frames
        if len(of_frame) < n:
            partial.append(f"{entries[index].id} ({len(of_frame)} of {n})")
        else:
            names = tuple(of_frame[frame] for frame in range(n))
            labelled[index] = replace(entries[index], frame_labels=names)
    if partial:
        warnings.warn(
            f"{table.name}: ignored for videos with unlabelled frames: {_some(partial)}",
            stacklevel=3,
        )
    return tuple(labelled)


def _index(table: Path, line: int, column: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(
            f"{table.name}: line {line}: {column} must be a whole number from 0, got {text!r}"
        )
    return int(text)


def _warn_unknown(table: Path, names: list[str]) -> None:
    if names:
        warnings.warn(
            f"{table.name}: no video in the folder is called {_some(names)}", stacklevel=4
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
