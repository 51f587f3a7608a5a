"""The tables of a folder of videos, with the names that the copies of the videos have."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.sweeps import SWEEPS
from usucl.data.catalog.tables.columns import FRAME_LABELS, LABEL, LABELS, VIDEO_ID
from usucl.data.catalog.tables.labels import Names
from usucl.data.catalog.tables.spreadsheet import read_sheet, tidy

_NAMED = {LABELS: VIDEO_ID, FRAME_LABELS: VIDEO_ID, SWEEPS: "part"}
_PATIENT = ("patient", "group")


@dataclass
class _Table:
    header: list[str]  # as written
    columns: list[str]  # what each cell of the header means
    rows: list[list[str]]
    videos: list[int | None]  # number of the video that each row names


def renamed_tables(
    root: Path, entries: Sequence[VideoEntry], names: Sequence[str]
) -> dict[str, bytes]:
    """Returns the tables of a folder by name, with other names of the videos.

    Other columns stay as they are, except that ``labels.csv`` names the patients that are known
    otherwise, as by the header of a DICOM file.

    Args:
        root: the folder.
        entries: its videos.
        names: the new name of each.
    """
    known = Names(root, [(entry.id, entry.paths) for entry in entries], [])
    patients = {i: entry.group for i, entry in enumerate(entries) if entry.patient_known}
    made: dict[str, bytes] = {}
    for name, column in _NAMED.items():
        if (root / name).is_file():
            table = _read(root / name, column, known, names)
        elif name == LABELS and patients:
            columns = [VIDEO_ID, LABEL]
            table = _Table(columns, columns.copy(), [], [])
        else:
            continue
        if name == LABELS:
            _add_patients(table, patients, names)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table.header)
        writer.writerows(table.rows)
        made[name] = text.getvalue().encode()
    return made


def _read(path: Path, column: str, known: Names, names: Sequence[str]) -> _Table:
    with warnings.catch_warnings():  # the catalogue has said what there is to say
        warnings.simplefilter("ignore")
        sheet = read_sheet(path, (column,), _PATIENT)
        numbered = list(sheet.rows)
    table = _Table(sheet.header, sheet.columns, [], [])
    place = sheet.columns.index(column)
    seen: set[tuple[str, ...]] = set()
    for line, cells in numbered:
        index = known.index(tidy(cells[place]), path, line)
        if index is not None:
            cells[place] = names[index]
            if tuple(cells) in seen:  # a link to the video has a row of its own
                continue
            seen.add(tuple(cells))
        table.rows.append(cells)
        table.videos.append(index)
    return table


def _add_patients(table: _Table, patients: dict[int, str], names: Sequence[str]) -> None:
    given = [place for place, column in enumerate(table.columns) if column in _PATIENT]
    rows = list(zip(table.videos, table.rows, strict=True))
    told = {index for index, cells in rows if any(tidy(cells[place]) for place in given)}
    missing = {i: patient for i, patient in patients.items() if i not in told}
    if not missing:
        return
    if not given:
        given = [len(table.header)]
        table.header.append(_PATIENT[0])
        table.columns.append(_PATIENT[0])
        for cells in table.rows:
            cells.append("")
    for index, cells in rows:
        if index in missing:
            cells[given[0]] = missing[index]
    for index in sorted(missing.keys() - set(table.videos)):
        cells = [""] * len(table.header)
        cells[table.columns.index(VIDEO_ID)] = names[index]
        cells[given[0]] = missing[index]
        table.rows.append(cells)
