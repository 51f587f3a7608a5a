"""Sweeps: one video of several clips of one examination, which stay files of their own.

Clinics store an examination as many short clips. A sweep has the frames of its clips one after the
other, so that frames of different clips are intra-video negatives of each other: they show
different slices. Which clips make a sweep is said by ``sweeps.csv`` (sweep_id, part, optionally
order), or by a pattern over the clips' paths.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from usucl._patterns import PART, sweep_groups
from usucl.data.catalog.entry import Part, VideoEntry
from usucl.data.catalog.identity import relative_name, same_name
from usucl.data.catalog.tables.labels import Names, some
from usucl.data.catalog.tables.spreadsheet import read_rows
from usucl.data.video import Video, natural_key

SWEEPS = "sweeps.csv"
NO_SWEEPS = "none"
"""In place of a pattern: every clip is a video, even where there is a ``sweeps.csv``."""

LONGEST_ID = 200
T = TypeVar("T")


class NoSweepError(ValueError):
    """A pattern puts no two clips of a folder together."""


class SweepVideo(Video):
    """The frames of several videos, one after the other; nothing is decoded to make it.

    The size is that of the first part. Frames of parts of another size are scaled to fit into it,
    with black borders. Each part's times follow those of the part before, after a gap of that
    part's mean time between frames: how long the pause was is not known. They are None if those of
    a part are.

    Args:
        path: where the sweep would lie if it were a file.
        parts: the videos, in order, and the name of each.

    Attributes:
        parts: the videos, in order.
    """

    def __init__(self, path: Path, parts: Mapping[str, Video]) -> None:
        self.path = path
        self.parts = tuple(parts.values())
        lengths = [len(part) for part in self.parts]
        self._starts = np.cumsum([0, *lengths])
        self.num_frames = int(self._starts[-1])
        self.frame_rate = _mean_rate(lengths, [part.frame_rate for part in self.parts])
        self.height, self.width = self.parts[0].height, self.parts[0].width
        self.times = _joined_times(self.parts)
        damage = [f"{name}: {part.damage}" for name, part in parts.items() if part.damage]
        self.damage = "; ".join(damage) or None
        patients = {part.patient for part in self.parts}
        self.patient = patients.pop() if len(patients) == 1 else None

    def _decode(self, indices: list[int]) -> Iterator[np.ndarray]:
        wanted = np.array(indices, dtype=np.int64)
        part_of = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(part_of):
            part = self.parts[number]
            for frame in part.iter_frames(wanted[part_of == number] - self._starts[number]):
                yield self._fitted(frame.permute(1, 2, 0).numpy())

    def _fitted(self, frame: np.ndarray) -> np.ndarray:
        if frame.shape[:2] == (self.height, self.width):
            return frame
        from PIL import Image

        scale = min(self.height / frame.shape[0], self.width / frame.shape[1])
        height, width = (max(1, round(side * scale)) for side in frame.shape[:2])
        small = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
        fitted = np.zeros((self.height, self.width, 3), dtype=np.uint8)
        top, left = (self.height - height) // 2, (self.width - width) // 2
        fitted[top : top + height, left : left + width] = np.asarray(small)
        return fitted


def _mean_rate(lengths: Sequence[int], rates: Sequence[float | None]) -> float | None:
    known = [rate for rate in rates if rate]
    if len(known) < len(rates):
        return None
    if len(set(known)) == 1:
        return known[0]
    return sum(lengths) / sum(n / rate for n, rate in zip(lengths, known, strict=True))


def _joined_times(parts: Sequence[Video]) -> np.ndarray | None:
    joined: list[np.ndarray] = []
    start = 0.0
    for part in parts:
        if part.times is None:
            return None
        joined.append(part.times + start)
        if len(part) > 1:
            gap = float(part.times[-1] - part.times[0]) / (len(part) - 1)
        elif part.frame_rate:
            gap = 1 / part.frame_rate
        else:
            return None
        start = float(joined[-1][-1]) + gap
    return np.concatenate(joined)


class Sweep(NamedTuple):
    """Which clips make a sweep.

    Attributes:
        id: its name.
        path: where it would lie if it were a file.
        clips: numbers of its clips, in order.
        names: of the clips within the sweep.
    """

    id: str
    path: Path
    clips: tuple[int, ...]
    names: tuple[str, ...]


def find_sweeps(
    root: Path, clips: Sequence[VideoEntry], sweep: str | Path | None, skipped: Collection[Path]
) -> list[Sweep]:
    """Returns the sweeps of a folder, in the order of their first clips.

    Args:
        root: the folder.
        clips: its videos.
        sweep: a pattern, see :meth:`usucl.data.VideoCatalog.with_sweeps`; the path of a table;
            ``"none"``; or None for the folder's own table, if it has one.
        skipped: paths of the files that cannot be used.

    Raises:
        ValueError: see :meth:`usucl.data.VideoCatalog.with_sweeps`.
    """
    if sweep == NO_SWEEPS or (sweep is None and not (root / SWEEPS).is_file()):
        return []
    if isinstance(sweep, str):
        found = _by_pattern(root, clips, sweep)
    else:
        found = _by_table(root, clips, root / SWEEPS if sweep is None else sweep, skipped)
    return sorted(found, key=lambda s: min(s.clips))


def _by_pattern(root: Path, clips: Sequence[VideoEntry], pattern: str) -> list[Sweep]:
    compiled = sweep_pattern(pattern)
    part = compiled.groupindex.get(PART)
    paths = [relative_name(root, clip.path) for clip in clips]
    together: dict[tuple[str, ...], list[tuple[int, str, str]]] = {}
    for i, (clip, path) in enumerate(zip(clips, paths, strict=True)):
        bare = path.removesuffix(clip.path.suffix) if clip.path.is_file() else path
        found = compiled.search(path) or compiled.search(bare)
        if found is None:
            continue
        groups = [found[n] or "" for n in range(1, compiled.groups + 1) if n != part]
        if not any(groups):
            continue
        # Clips of two hospitals whose names agree are not of one examination.
        folder = found.string[: found.start()].rpartition("/")[0]
        text, name = found[0], ""
        if part and found[part]:
            name = found[part]
            start = found.start(part) - found.start()
            text = text[:start] + text[start + len(name) :]
        together.setdefault((folder, *groups), []).append((i, name, text.strip("/ _-.")))
    if all(len(members) < 2 for members in together.values()):
        raise NoSweepError(
            "sweep must be a pattern by which clips belong together, such as "
            f"'(patient_\\d+)_', got {pattern!r}, which finds no two clips alike in paths such as "
            f"{paths[0]!r}"
        )
    if len(together) == 1 and len(clips) == len(next(iter(together.values()))) > 2:
        warnings.warn(f"sweeps: {pattern!r} puts all {len(clips)} clips into one", stacklevel=4)
    names = [
        (folder, _common([text for *_, text in members]) or "_".join(filter(None, groups)))
        for (folder, *groups), members in together.items()
    ]
    sweeps = []
    for (folder, name), members in zip(names, together.values(), strict=True):
        members.sort(key=lambda member: natural_key(paths[member[0]]))
        twice = sum(other == name for _, other in names) > 1
        of_parts = [own or clips[i].id for i, own, _ in members]
        if len(set(of_parts)) < len(of_parts):
            of_parts = [clips[i].id for i, *_ in members]
        id = f"{folder}/{name}" if twice and folder else name
        numbers = tuple(i for i, *_ in members)
        sweeps.append(Sweep(id, _place(root, f"{folder}/{name}"), numbers, tuple(of_parts)))
    _check_ids(clips, sweeps, f"sweep {pattern!r}: ")
    return sweeps


def _common(texts: Sequence[str]) -> str:
    """Returns what was found in every clip, if it is the same."""
    return texts[0] if len(set(texts)) == 1 else ""


def _by_table(
    root: Path, clips: Sequence[VideoEntry], table: Path, skipped: Collection[Path]
) -> list[Sweep]:
    known = Names(root, [(clip.id, clip.paths) for clip in clips], skipped)
    lines: dict[int, tuple[int, str]] = {}
    found: dict[str, dict[int, tuple[int, float | None]]] = {}
    lost: list[str] = []
    for line, row in read_rows(table, ("sweep_id", "part"), ("order",)):
        name = same_name(row["sweep_id"])
        if not name.strip("./\\ ") or len(name) > LONGEST_ID:
            raise ValueError(
                f"{table.name}: line {line}: sweep_id must be a name of at most {LONGEST_ID} "
                f"letters, got {name[:LONGEST_ID]!r}"
            )
        index = known.index(row["part"], table, line)
        if index is None:
            if not known.is_skipped(row["part"]):
                raise ValueError(
                    f"{table.name}: line {line}: no video in the folder is called "
                    f"{known.with_nearest(row['part'])}"
                )
            lost.append(f"{row['part']} of {name}")
            continue
        if index in lines:
            before, other = lines[index]
            raise ValueError(
                f"{table.name}: lines {before} and {line} both name {clips[index].id!r}"
                + (f", as a part of {other!r} and of {name!r}" if other != name else "")
            )
        lines[index] = line, name
        found.setdefault(name, {})[index] = line, _order(table, line, row["order"])
    if lost:
        warnings.warn(
            f"{table.name}: {len(lost)} parts are left out, because they cannot be read: "
            f"{some(lost)}",
            stacklevel=4,
        )
    sweeps = []
    for name, parts in found.items():
        numbers = tuple(_in_order(table, name, parts))
        names = tuple(clips[i].id for i in numbers)
        sweeps.append(Sweep(name, _place(root, name), numbers, names))
    _check_ids(clips, sweeps, f"{table.name}: ")
    return sweeps


def _order(table: Path, line: int, text: str) -> float | None:
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,15}([.,][0-9]{1,9})?", text):
        raise ValueError(f"{table.name}: line {line}: order must be a number, got {text!r}")
    return float(text.replace(",", "."))


def _in_order(table: Path, name: str, parts: Mapping[int, tuple[int, float | None]]) -> list[int]:
    """Returns the clips of a sweep by their order or, where the table gives none, by their rows."""
    by_order: dict[float, int] = {}
    without = [line for line, order in parts.values() if order is None]
    if without and len(without) < len(parts):
        raise ValueError(
            f"{table.name}: line {without[0]}: order must be given for every part of {name!r} or "
            "for none"
        )
    for line, order in parts.values():
        if order is not None and (before := by_order.setdefault(order, line)) != line:
            raise ValueError(
                f"{table.name}: lines {before} and {line} both give order {order:g} to a part of "
                f"{name!r}"
            )
    return list(parts) if without else sorted(parts, key=lambda i: parts[i][1] or 0.0)


def _check_ids(clips: Sequence[VideoEntry], sweeps: Sequence[Sweep], where: str) -> None:
    taken = {i for sweep in sweeps for i in sweep.clips}
    others = {clip.id for i, clip in enumerate(clips) if i not in taken}
    seen: set[str] = set()
    for sweep in sweeps:
        if sweep.id in others:
            raise ValueError(
                f"{where}the sweep {sweep.id!r} has the name of a video that is no part of it"
            )
        if sweep.id in seen:
            raise ValueError(f"{where}two sweeps would be called {sweep.id!r}")
        seen.add(sweep.id)


def _place(root: Path, name: str) -> Path:
    """Returns a path in ``root``, whatever the name is."""
    return root.joinpath(*(p for p in re.split(r"[/\\]", name) if p not in ("", ".", "..")))


def sweep_pattern(pattern: str) -> re.Pattern[str]:
    """Returns the expression of a pattern.

    Raises:
        ValueError: it is none, or has no group.
    """
    try:
        return sweep_groups(pattern)
    except ValueError as error:
        raise ValueError(f"sweep {error}") from error


def joined(
    clips: Sequence[VideoEntry],
    sweeps: Sequence[Sweep],
    given: Mapping[int, Mapping[str, Any]] | None = None,
) -> tuple[VideoEntry, ...]:
    """Returns the sweeps, and the clips that are part of none, in the order of first clips.

    Args:
        clips: all clips.
        sweeps: which of them belong together.
        given: what the tables say of sweeps by their own names, as fields of an entry, by the
            number of the sweep.

    Raises:
        ValueError: the patients or the folds of a sweep's clips contradict each other.
    """
    # Labels of frames are not mixed with those of whole clips, which may be of another kind.
    by_frame = any(clip.frame_labels for clip in clips)
    by_frame |= any("frame_labels" in fields for fields in (given or {}).values())
    first: dict[int, VideoEntry] = {}
    taken: set[int] = set()
    for number, sweep in enumerate(sweeps):
        fields = dict((given or {}).get(number, {}))
        parts = [clips[i] for i in sweep.clips]
        first[min(sweep.clips)] = _joined(sweep, parts, by_frame, fields)
        taken.update(sweep.clips)
    entries = (first.get(i, clip) for i, clip in enumerate(clips) if i in first or i not in taken)
    return tuple(entries)


def _joined(
    sweep: Sweep, clips: Sequence[VideoEntry], by_frame: bool, given: Mapping[str, Any]
) -> VideoEntry:
    tabled = given.get("patient_known")
    known = [c.group for c in clips if c.patient_known and not (tabled and c.by_file)]
    known += [given["group"]] if tabled else []
    patient = _one(sweep, "patient", known)
    in_files = {clip.file_patient for clip in clips} - {""}
    folds = [clip.fold for clip in clips] + [given.get("fold")]
    labels = list(dict.fromkeys(clip.label for clip in clips if clip.label is not None))
    sources = list(dict.fromkeys(clip.source for clip in clips if clip.source is not None))
    lengths = [clip.num_frames for clip in clips]
    frame_labels: list[str | None] = []
    for clip in clips:
        whole = (None if by_frame else clip.label,) * clip.num_frames
        frame_labels += clip.frame_labels or whole
    of_frames = given.get("frame_labels") or tuple(frame_labels)
    return VideoEntry(
        sweep.id,
        sweep.path,
        sum(lengths),
        _mean_rate(lengths, [clip.frame_rate for clip in clips]),
        label=given.get("label") or (labels[0] if len(labels) == 1 else None),
        group=patient or sweep.id,
        patient_known=patient is not None,
        fold=_one(sweep, "fold", [fold for fold in folds if fold is not None]),
        frame_labels=of_frames if any(of_frames) else None,
        source=given.get("source") or (sources[0] if len(sources) == 1 else None),
        parts=tuple(map(Part, sweep.names, clips)),
        file_patient=in_files.pop() if len(in_files) == 1 else "",
        by_file=not tabled and all(c.by_file or not c.patient_known for c in clips),
    )


def _one(sweep: Sweep, what: str, values: Sequence[T]) -> T | None:
    """Returns the only one of some values, None if there is none."""
    distinct = list(dict.fromkeys(values))
    if len(distinct) > 1:
        raise ValueError(
            f"{what} must be the same for all clips of a sweep, those of {sweep.id!r} "
            f"({some(sweep.names)}) have {' and '.join(map(repr, distinct[:3]))}"
        )
    return distinct[0] if distinct else None


def without_sweeps(entries: Sequence[VideoEntry]) -> tuple[VideoEntry, ...]:
    """Returns the videos that lie in files and folders: clips in place of their sweeps."""
    return tuple(
        clip
        for entry in entries
        for clip in ([part.video for part in entry.parts] if entry.parts else [entry])
    )
