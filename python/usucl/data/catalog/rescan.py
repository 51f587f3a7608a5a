"""Reading a folder with the options of a run, as far as they fit other data than its own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from usucl.data.catalog.catalog import VideoCatalog
from usucl.data.catalog.sweeps import NoSweepError
from usucl.data.catalog.tables.columns import LABEL, check_label
from usucl.data.video import Damaged


def scan_like(
    data: str | Path,
    own: Mapping[str, object],
    *,
    patient_pattern: str | None = None,
    label: str | None = None,
    sweep: str | None = None,
    min_frames: int = 2,
) -> VideoCatalog:
    """Returns the videos of a folder, read, labelled, joined and grouped as by a run.

    Args:
        data: the folder.
        own: the options of the run by name; those that are missing are as by default.
        patient_pattern, label, sweep: replace those of the run, see
            :meth:`usucl.data.VideoCatalog.scan`.
        min_frames: videos with fewer frames are skipped.

    Raises:
        ValueError: see there.

    Warns:
        UserWarning: an option of the run, which was not replaced, does not fit these data.
    """
    damaged: Damaged = "keep" if own.get("damaged") == "keep" else "skip"
    if label is None:
        label = _own_label(Path(data), own.get("label"))
    scan = partial(
        VideoCatalog.scan,
        data,
        min_frames=min_frames,
        damaged=damaged,
        label=label,
        patient_pattern=patient_pattern,
    )
    of_run = own.get("sweep")
    if sweep is not None or not isinstance(of_run, str):
        catalog = scan(sweep=sweep)
    else:
        try:
            catalog = scan(sweep=of_run)
        except NoSweepError as error:
            _warn("sweeps are", error)
            catalog = scan()
    pattern = own.get("patient_pattern")
    if patient_pattern is not None or not isinstance(pattern, str):
        return catalog
    try:
        return catalog.with_patients(pattern)
    except ValueError as error:
        _warn("pattern is", error)
        return catalog


def _own_label(data: Path, label: object) -> str:
    if not isinstance(label, str) or not data.is_dir():
        return LABEL
    try:
        check_label(data, label)
    except ValueError as error:
        _warn("label is", error)
        return LABEL
    return label


def _warn(what: str, error: ValueError) -> None:
    warnings.warn(f"the run's {what} not used: {error}", stacklevel=4)
