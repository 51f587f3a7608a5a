"""What is known of a video besides what it shows: where, and with which machine, it was made."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from usucl.data.catalog.catalog import VideoCatalog
from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.tables.columns import LABELS, VIDEO_ID
from usucl.data.catalog.tables.labels import Names
from usucl.data.catalog.tables.spreadsheet import read_sheet, squeezed, tidy
from usucl.data.inspection.headers import header_texts
from usucl.data.video import VideoError
from usucl.data.video.dicom import is_dicom

SOURCE = "source"
PICTURE_SIZE = "picture size"
COLUMNS = frozenset(
    map(
        squeezed,
        (
            *("probe", "probe_type", "transducer", "transducer_type"),
            *("machine", "machine_type", "device", "device_type", "scanner", "system", "equipment"),
            *("manufacturer", "manufacturer_model", "vendor", "brand", "model", "preset"),
            *("hospital", "site", "centre", "center", "clinic", "institution", "institute"),
            *("department", "country", "city", "operator", "sonographer", "examiner"),
            *("data_set", "dataset", "publisher", "origin"),
        ),
    )
)
"""Columns of ``labels.csv`` that say where a video comes from, whatever their case and blanks."""
DICOM = {
    "Manufacturer": "manufacturer (DICOM)",
    "ManufacturerModelName": "model (DICOM)",
    "InstitutionName": "institution (DICOM)",
    "TransducerData": "transducer (DICOM)",
}
"""Elements of a DICOM header that say the same, with the names under which they are told."""


def context_of(catalog: VideoCatalog, *, besides: str = "") -> dict[str, tuple[str, ...]]:
    """Returns the known contexts of the videos by name, "" for a video of which one is not known.

    They are the columns :data:`COLUMNS` of ``labels.csv`` and its sources, the size of the
    pictures, and what DICOM headers say. A sweep has those in which all of its clips agree.
    Contexts with one value in all videos are left out.

    Args:
        catalog: the videos.
        besides: a column that is left out, because it holds the labels.
    """
    of_files = {clip.id: _of_file(clip) for clip in catalog.clips}
    by_name = _columns(catalog, besides)
    for name in (PICTURE_SIZE, *DICOM.values()):
        by_name[name] = {clip: of[name] for clip, of in of_files.items()}
    found = {SOURCE: tuple(entry.source or "" for entry in catalog)}
    found |= {name: tuple(_agreed(e, of) for e in catalog) for name, of in by_name.items()}
    return {name: values for name, values in found.items() if len(set(values)) > 1}


def _agreed(entry: VideoEntry, by_name: Mapping[str, str]) -> str:
    """Returns the value of a video itself, or else the one of all its clips."""
    if entry.id in by_name:
        return by_name[entry.id]
    values = {by_name.get(part.video.id, "") for part in entry.parts}
    return values.pop() if len(values) == 1 else ""


def _columns(catalog: VideoCatalog, besides: str) -> dict[str, dict[str, str]]:
    """Returns the cells of the columns that say where a video comes from, by its id."""
    table = catalog.root / LABELS
    if not table.is_file():
        return {}
    entries = catalog.clips + catalog.sweeps
    skipped = [s.path for s in catalog.skipped]
    known = Names(catalog.root, [(e.id, e.paths) for e in entries], skipped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the scan of the folder gave them
        sheet = read_sheet(table, (VIDEO_ID,))
        wanted = {
            i: name
            for i, name in enumerate(sheet.columns)
            if squeezed(name) in COLUMNS and squeezed(name) != squeezed(besides)
        }
        found: dict[str, dict[str, str]] = {name: {} for name in wanted.values()}
        at = sheet.columns.index(VIDEO_ID)
        for line, cells in sheet.rows:
            index = known.index(tidy(cells[at]), table, line)
            if index is not None:
                for i, name in wanted.items():
                    found[name].setdefault(entries[index].id, tidy(cells[i]))
    return found


def _of_file(clip: VideoEntry) -> dict[str, str]:
    """Returns the size of the pictures, and what the header says of a DICOM file."""
    found = dict.fromkeys((PICTURE_SIZE, *DICOM.values()), "")
    try:
        video = clip.open()
        found[PICTURE_SIZE] = f"{video.width} x {video.height}"
        if is_dicom(video.path):
            header = header_texts(video.path, DICOM)
            found |= {name: header[keyword] for keyword, name in DICOM.items()}
    except VideoError:
        pass  # nothing is known of a file that has changed since the scan
    return found
