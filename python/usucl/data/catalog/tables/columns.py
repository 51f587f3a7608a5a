"""Which column of the tables holds the labels: ``label``, or another one that is asked for."""

from __future__ import annotations

import warnings
from pathlib import Path

from usucl._spelling import did_you_mean
from usucl.data.catalog.tables.spreadsheet import read_sheet, squeezed

LABELS = "labels.csv"
FRAME_LABELS = "frame_labels.csv"
VIDEO_ID = "video_id"
LABEL = "label"
ABOUT_VIDEOS = ("patient", "group", "fold", "source")
"""Columns that ``labels.csv`` may have besides the label."""
# What these say of a video is not what it shows.
_OTHERS = frozenset(map(squeezed, (VIDEO_ID, "frame", "last_frame", "patient", "group", "fold")))


def label_columns(root: Path) -> list[str]:
    """Returns the names of all columns of the tables in ``root`` that may be the labels.

    Raises:
        ValueError: see :func:`usucl.data.catalog.tables.spreadsheet.read_sheet`.
    """
    names: dict[str, str] = {}
    for table in (root / LABELS, root / FRAME_LABELS):
        for name in _header(table):
            if squeezed(name) and squeezed(name) not in _OTHERS:
                names.setdefault(squeezed(name), name)
    return list(names.values())


def any_label(root: Path) -> str:
    """Returns a column that may be the labels, for reading a folder whatever its labels are."""
    known = {squeezed(name): name for name in label_columns(root)}
    return LABEL if LABEL in known or not known else next(iter(known.values()))


def check_label(root: Path, label: str) -> None:
    """Checks the name of the column of the labels, which one of the tables in ``root`` must have.

    Raises:
        ValueError: it is no such column; ``label`` itself need not exist where no table does.
    """
    if squeezed(label) == LABEL:
        return
    known = label_columns(root)
    if squeezed(label) in map(squeezed, known):
        return
    if squeezed(label) in _OTHERS:
        raise ValueError(f"label must be a column that says what a video shows, got {label!r}")
    tables = [name for name in (LABELS, FRAME_LABELS) if (root / name).is_file()]
    if not tables:
        raise ValueError(
            f"label must be a column of {LABELS}, got {label!r}, but there is none in {root}"
        )
    raise ValueError(
        f"label must be a column of {' or '.join(tables)}, got {label!r}; the columns are "
        f"{', '.join(known) or 'none'}{did_you_mean(label, known)}"
    )


def columns_of(table: Path, label: str) -> tuple[str, ...]:
    """Returns the columns that a table must have, the first of which names the video.

    The column of the labels is among them unless it is another than ``label``, which only one of
    the tables must have, or the table is ``labels.csv`` and has no column that could be the labels.

    Raises:
        ValueError: the column ``label`` is missing where another one may be meant.
    """
    header = _header(table)
    if squeezed(label) in map(squeezed, header):
        return VIDEO_ID, label
    if squeezed(label) != LABEL:
        return (VIDEO_ID,)
    others = [name for name in header if squeezed(name) and squeezed(name) not in _OTHERS]
    if table.name == LABELS:
        others = [name for name in others if squeezed(name) not in ABOUT_VIDEOS]
        if any(header) and not others:
            return (VIDEO_ID,)
    if VIDEO_ID in header and others:
        raise ValueError(
            f"{table.name} must have the columns {VIDEO_ID}, {LABEL}; missing: {LABEL} (its "
            f"columns are {', '.join(filter(None, header))}): name the column of the labels by "
            f"label=, or add an empty column {LABEL} if none of them is"
        )
    return VIDEO_ID, label


def _header(table: Path) -> list[str]:
    if not table.is_file():
        return []
    with warnings.catch_warnings():  # reading the rows gives them
        warnings.simplefilter("ignore")
        return read_sheet(table, (), (VIDEO_ID, "frame")).columns
