"""The times of the frames of a folder, in a table beside them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from usucl.data.video.base import VideoError, seconds

TIMES = "times.csv"
LARGEST = 2**25  # bytes
_COLUMNS = ["frame", "seconds"]


def write_times(folder: Path, names: Sequence[str], times: np.ndarray) -> None:
    """Writes ``times.csv``: the name of each image, and its time in seconds."""
    with (folder / TIMES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows((name, repr(float(t))) for name, t in zip(names, times, strict=True))


def read_times(folder: Path, names: Sequence[str]) -> np.ndarray | None:
    """Returns float64 [n], seconds after the first of some images; None if there is no table.

    Raises:
        VideoError: the table lacks an image or a column, or the times do not increase.
    """
    try:
        if (folder / TIMES).stat().st_size > LARGEST:
            raise VideoError(folder, f"{TIMES} is larger than {LARGEST} bytes")
        with (folder / TIMES).open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            told = {row["frame"]: float(row["seconds"]) for row in rows}
    except FileNotFoundError:
        return None
    except (KeyError, TypeError):
        raise VideoError(folder, f"{TIMES} must have the columns {', '.join(_COLUMNS)}") from None
    except (OSError, ValueError, csv.Error) as error:
        raise VideoError(folder, f"{TIMES} cannot be read ({error})") from error
    if missing := [name for name in names if name not in told]:
        raise VideoError(folder, f"{TIMES} has no row for {missing[0]}")
    found = [told[name] for name in names]
    times = seconds(list(found)) if all(map(math.isfinite, found)) else None
    if times is None:
        raise VideoError(folder, f"{TIMES}: the seconds must increase from frame to frame")
    return times
