"""``labels.csv`` and ``frame_labels.csv``: which video each row means, and what it says of it.

Cells that only say that something is unknown are taken as empty. In any column, these are ``nan``,
``NA``, ``N/A``, ``null``, pandas' ``<NA>`` and ``NaT``, a spreadsheet's errors such as ``#N/A``,
and signs such as ``-`` and ``?``. A patient, source or fold is also unknown if it is ``none`` or
``unknown``; as labels those two stay, because they may be classes. Signs stay labels if one of the
table's labels holds a plus, as in ``+`` against ``-``.
"""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from usucl.data.catalog.identity import same_name, without_suffix
from usucl.data.catalog.tables.columns import (
    ABOUT_VIDEOS,
    FRAME_LABELS,
    LABEL,
    LABELS,
    VIDEO_ID,
    columns_of,
)
from usucl.data.catalog.tables.spreadsheet import read_rows

MISSING = re.compile(r"-?nan|<?na>?|n/a|n\.a\.|nat|null|nil|#(n/?[ad]|nv|\S*[!?])", re.IGNORECASE)
MISSING_UNLESS_A_CLASS = frozenset({"none", "unknown", "unk", "missing", "not available"})


class Names:
    """Finds the video that a table means by a video_id.

    Args:
        root: the folder.
        videos: id of every video, and the paths that lead to it, its own first.
        skipped: files that cannot be used.
    """

    def __init__(
        self, root: Path, videos: Iterable[tuple[str, Sequence[Path]]], skipped: Iterable[Path]
    ) -> None:
        self._exact: dict[str, set[int]] = defaultdict(set)
        self._alike: dict[str, set[int]] = defaultdict(set)
        self._links: set[str] = set()
        self._ids: dict[str, int] = {}
        for i, (name, paths) in enumerate(videos):
            self._ids[name] = i
            own, *linked = (_names(root, path) for path in paths)
            self._links.update(*(names - own for names in linked))
            for known in own.union({name}, *linked):
                self._exact[known].add(i)
                self._alike[_alike(known)].add(i)
        self._skipped = {_alike(name) for path in skipped for name in _names(root, path)}

    def index(self, name: str, table: Path, line: int) -> int | None:
        """Returns the video's position, None if there is none of this name.

        Raises:
            ValueError: several videos have the name.
        """
        if (own := self._ids.get(name.removeprefix("./"))) is not None:
            return own  # whatever else lies in other folders under this name
        found = self._exact.get(name) or self._alike.get(_alike(name)) or set()
        if not found and (number := _as_whole(name)) != name:
            return self.index(number, table, line)
        if len(found) > 1:
            raise ValueError(
                f"{table.name}: line {line}: video_id {name!r} fits {len(found)} videos; "
                "give the path relative to the folder"
            )
        return next(iter(found), None)

    def is_skipped(self, name: str) -> bool:
        """Returns whether this is the name of a file that cannot be used."""
        return _alike(name) in self._skipped

    def with_nearest(self, name: str) -> str:
        """Returns a name that no video has, with the name that comes nearest."""
        return f"{name or '(empty)'}{self._nearest(name)}"

    def is_link(self, name: str) -> bool:
        """Returns whether a video has this name only by a link to it."""
        return name in self._links

    def warn_of_unknown(self, table: Path, names: Iterable[str]) -> None:
        """Warns of names that no video has, with those that come nearest."""
        unknown = [name for name in names if not self.is_skipped(name)]
        if unknown:
            said = [self.with_nearest(name) for name in unknown[:5]]
            warnings.warn(
                f"{table.name}: no video in the folder is called {some(said, len(unknown))}",
                stacklevel=4,
            )

    def _nearest(self, name: str) -> str:
        # Letters of another case, lost zeros and the folders of another computer are far apart.
        folded = {_bare(known): known for known in sorted(self._alike)}
        name = _as_whole(name)
        near = folded.get(_bare(name)) or folded.get(_bare(_alike(name).rpartition("/")[2]))
        if near is None:
            known = difflib.get_close_matches(_alike(name), self._alike, n=1, cutoff=0.75)
            near = next(iter(known), None)
        return "" if near is None else f" (did you mean {near}?)"


def _names(root: Path, path: Path) -> set[str]:
    relative = path.as_posix().removeprefix(root.as_posix().rstrip("/") + "/")
    names = {path.name, relative}
    if (bare := without_suffix(path)) != path and os.path.isfile(path):
        names |= {bare.name, relative.removesuffix(path.suffix)}
    return names


def _alike(name: str) -> str:
    return same_name(name.replace("\\", "/").removeprefix("./").rstrip("/"))


def _bare(name: str) -> str:
    """Returns a name without differences of case, and of zeros before a number."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", _alike(name).casefold())


def _as_whole(text: str) -> str:
    """Returns 12 for 12.0, as pandas and spreadsheets write whole numbers next to empty cells."""
    number = re.fullmatch(r"([0-9]{1,18})[.,]0+", text)
    return number[1] if number else text


def read_labels(
    table: Path,
    known: Names,
    ids: Sequence[str],
    missing: Collection[str] = (),
    label: str = LABEL,
) -> dict[int, dict[str, Any]]:
    """Returns what the table says of each video it names, as fields of a ``VideoEntry``.

    Args:
        table: ``labels.csv``.
        known: finds the videos.
        ids: id of every video.
        missing: further words for what is unknown.
        label: the column of the labels; another than ``label`` may be absent.

    Raises:
        ValueError: see :meth:`usucl.data.VideoCatalog.scan`.
    """
    columns = columns_of(table, label)
    rows = list(read_rows(table, columns, ABOUT_VIDEOS))
    is_missing, is_unknown = _words(missing, [row.get(label, "") for _, row in rows])
    found: dict[int, dict[str, Any]] = {}
    first: dict[int, tuple[int, dict[str, str]]] = {}
    folds: dict[str, tuple[int, int]] = {}
    unknown: list[str] = []
    left_out: dict[str, Counter[str]] = defaultdict(Counter)
    for line, row in rows:
        index = known.index(row[VIDEO_ID], table, line)
        if index is None:
            unknown.append(row[VIDEO_ID])
            continue
        if index in first:
            earlier, same = first[index]
            linked = known.is_link(row[VIDEO_ID]) or known.is_link(same[VIDEO_ID])
            if not linked or row | {VIDEO_ID: ""} != same | {VIDEO_ID: ""}:
                raise ValueError(
                    f"{table.name}: lines {earlier} and {line} both name {ids[index]!r}"
                )
            continue
        first[index] = line, row.copy()
        for column, test in {**dict.fromkeys(ABOUT_VIDEOS, is_unknown), label: is_missing}.items():
            if row.get(column) and test(row[column]):
                left_out[column][row[column]] += 1
                row[column] = ""
        patient = _as_whole(same_name(row["patient"] or row["group"]))
        fold = _whole(table, line, "fold", row["fold"]) if row["fold"] else None
        if patient and fold is not None:
            before, other = folds.setdefault(patient, (line, fold))
            if fold != other:
                raise ValueError(
                    f"{table.name}: lines {before} and {line} put patient {patient!r} into folds "
                    f"{other} and {fold}: a patient must be in one"
                )
        found[index] = {
            "label": _as_whole(same_name(row.get(label, ""))) or None,
            "group": patient or ids[index],
            "patient_known": bool(patient),
            "fold": fold,
            "source": row["source"] or None,
        }
    known.warn_of_unknown(table, unknown)
    _warn_of_missing(table, left_out)
    _warn_of_doubtful(table, Counter(fields["label"] or "" for fields in found.values()))
    _warn_of_case(table, label, (fields["label"] for fields in found.values()))
    _warn_of_case(table, "patient", (f["group"] for f in found.values() if f["patient_known"]))
    return found


def read_frame_labels(
    table: Path,
    known: Names,
    ids: Sequence[str],
    lengths: Sequence[int],
    missing: Collection[str] = (),
    label: str = LABEL,
) -> dict[int, tuple[str | None, ...]]:
    """Returns the labels of every video of which a frame is labelled, one or None per frame.

    Args:
        table: ``frame_labels.csv``.
        known, ids, missing, label: as in :func:`read_labels`.
        lengths: number of frames of every video.

    Raises:
        ValueError: see :meth:`usucl.data.VideoCatalog.scan`.
    """
    columns = columns_of(table, label)
    if label not in columns:
        return {}
    found: dict[int, list[str | None]] = {}
    unknown: dict[str, None] = {}
    left_out: dict[str, Counter[str]] = defaultdict(Counter)
    is_missing, _ = _words(missing, ["+"])  # signs are findings of a frame
    for line, row in read_rows(table, (*columns, "frame"), ("last_frame",)):
        index = known.index(row[VIDEO_ID], table, line)
        if index is None:
            unknown[row[VIDEO_ID]] = None
            continue
        frame = last = _whole(table, line, "frame", row["frame"])
        if row["last_frame"]:
            last = _whole(table, line, "last_frame", row["last_frame"])
        if last < frame:
            raise ValueError(
                f"{table.name}: line {line}: last_frame must be at least frame {frame}, got {last}"
            )
        if last >= lengths[index]:
            raise ValueError(
                f"{table.name}: line {line} labels frame {last} of {ids[index]!r}, "
                f"which has {lengths[index]} frames"
            )
        if is_missing(row[label]):
            if row[label]:
                left_out[label][row[label]] += 1
            continue
        name = _as_whole(same_name(row[label]))
        labels = found.setdefault(index, [None] * lengths[index])
        for number in range(frame, last + 1):
            if labels[number] not in (None, name):
                raise ValueError(
                    f"{table.name}: line {line} contradicts an earlier label of frame {number} "
                    f"of {ids[index]!r}"
                )
            labels[number] = name
    known.warn_of_unknown(table, unknown)
    _warn_of_missing(table, left_out)
    _warn_of_case(table, label, (name for labels in found.values() for name in labels))
    partial = [
        f"{ids[i]} ({len(labels) - labels.count(None)} of {len(labels)})"
        for i, labels in found.items()
        if None in labels
    ]
    if partial:
        warnings.warn(
            f"{table.name}: {len(partial)} of {len(found)} videos have labels of some frames only, "
            f"which are used: {some(partial)}",
            stacklevel=3,
        )
    return {i: tuple(labels) for i, labels in found.items()}


def warn_of_tables_elsewhere(root: Path, videos: Iterable[Path]) -> None:
    """Warns of tables that are not read, because they do not lie directly in ``root``.

    They are looked for above ``root``, and in the folders between it and the videos.
    """
    folders = {os.path.dirname(os.path.abspath(root)): None}
    top, seen = str(root), {str(root)}
    for video in map(str, videos):
        between = [video] if os.path.isdir(video) and video != top else []
        folder = os.path.dirname(video)
        while folder and folder not in seen:
            seen.add(folder)
            between.append(folder)
            folder = os.path.dirname(folder)
        folders |= dict.fromkeys(reversed(between))
    for name in (LABELS, FRAME_LABELS):
        if (root / name).is_file():
            continue
        tables = (os.path.join(folder, name) for folder in folders)
        if found := [table for table in tables if os.path.isfile(table)]:
            warnings.warn(
                f"{name}: only a table directly in {root} is read, not {some(found)}", stacklevel=3
            )


def _words(
    missing: Collection[str], labels: Iterable[str]
) -> tuple[Callable[[str], bool], Callable[[str], bool]]:
    """Returns two tests: whether a label, and whether another cell, says that it is unknown."""
    told = {word.strip().casefold() for word in missing}
    signs_are_labels = any("+" in label for label in labels)

    def is_sign(text: str) -> bool:
        return not any(map(str.isalnum, text))

    def is_word(text: str) -> bool:
        return bool(MISSING.fullmatch(text)) or text.casefold() in told

    def is_missing(label: str) -> bool:
        return is_word(label) or (is_sign(label) and not (label and signs_are_labels))

    def is_unknown(text: str) -> bool:
        return is_word(text) or is_sign(text) or text.casefold() in MISSING_UNLESS_A_CLASS

    return is_missing, is_unknown


def _whole(table: Path, line: int, column: str, text: str) -> int:
    # pandas writes whole numbers as 1.0 once a cell of their column is empty.
    if not (number := re.fullmatch(r"([0-9]{1,18})([.,]0+)?", text)):
        raise ValueError(
            f"{table.name}: line {line}: {column} must be a whole number from 0, got {text!r}"
        )
    return int(number[1])


def _warn_of_missing(table: Path, left_out: dict[str, Counter[str]]) -> None:
    for column, words in left_out.items():
        spelled = ", ".join(map(repr, words))
        warnings.warn(
            f"{table.name}: {column} is taken as unknown in {words.total()} rows, which say "
            f"{spelled}",
            stacklevel=4,
        )


def _warn_of_doubtful(table: Path, labels: Counter[str]) -> None:
    doubtful = {word: n for word, n in labels.items() if word.casefold() in MISSING_UNLESS_A_CLASS}
    if doubtful:
        spelled = ", ".join(f"{word!r} ({n} videos)" for word, n in doubtful.items())
        warnings.warn(
            f"{table.name}: taken as a class: {spelled}; leave the cell empty if the label is "
            "unknown",
            stacklevel=4,
        )


def _warn_of_case(table: Path, column: str, names: Iterable[str | None]) -> None:
    alike: dict[str, set[str]] = defaultdict(set)
    for name in set(filter(None, names)):
        alike[name.casefold()].add(name)
    if differ := [sorted(spelled) for spelled in alike.values() if len(spelled) > 1]:
        said = sorted(" and ".join(map(repr, spelled)) for spelled in differ)
        warnings.warn(
            f"{table.name}: {column}: told apart by their case alone: {some(said)}", stacklevel=4
        )


def some(names: Sequence[str], total: int | None = None, most: int = 5) -> str:
    """Returns the first ``most`` of ``names``, and how many more there are of ``total``."""
    total = len(names) if total is None else total
    more = f" and {total - most} more" if total > most else ""
    return ", ".join(names[:most]) + more
