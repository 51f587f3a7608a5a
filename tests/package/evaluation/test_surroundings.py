"""What surrounds the figures: known contexts of the videos, and copies across a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from runs import make_data
from tiny_dicom import write

from usucl.data import VideoCatalog
from usucl.data.inspection.context import context_of
from usucl.evaluation.overlap import near_duplicates


def test_contexts_are_the_columns_that_say_where_a_video_is_from(tmp_path: Path) -> None:
    data = make_data(tmp_path, videos=4, frames=2)
    table = data / "labels.csv"
    header, *rows = table.read_text().splitlines()
    more = [
        "Probe,comment,country",
        *(f"{p},text {p},one" for p in ("linear", "convex", "", "convex")),
    ]
    table.write_text("\n".join(f"{a},{b}" for a, b in zip([header, *rows], more, strict=True)))
    found = context_of(VideoCatalog.scan(data))
    assert found == {  # one country and one size of the pictures tell nothing
        "source": ("north", "north", "south", "south"),
        "Probe": ("linear", "convex", "", "convex"),
    }
    assert set(context_of(VideoCatalog.scan(data), besides="probe")) == {"source"}


def test_contexts_are_read_from_dicom_headers(tmp_path: Path) -> None:
    pixels = np.arange(2 * 32 * 40, dtype=np.uint8).reshape(2, 32, 40)
    for name, maker in (("a", "One"), ("b", "Other"), ("c", "")):
        write(tmp_path / f"{name}.dcm", pixels, Manufacturer=maker, InstitutionName="Same")
    found = context_of(VideoCatalog.scan(tmp_path))
    assert found == {"manufacturer (DICOM)": ("One", "Other", "")}


def test_copies_are_found_across_a_split_only(tmp_path: Path) -> None:
    catalog = VideoCatalog.scan(make_data(tmp_path, videos=4, frames=6)).with_folds(n=2)
    first, second = catalog.entries[0], catalog.entries[1]
    assert first.fold == second.fold  # of one patient, and alike but for the brightness
    found = near_duplicates(catalog.entries, [True, False, False, False])
    assert [(p.video, p.other, p.apart) for p in found] == [(second.id, first.id, "pretraining")]
    assert not found[0].equal and found[0].bits < 1
    assert near_duplicates(catalog.entries, [False] * 4) == ()
