"""``Gallery.search``: exactly what its filters leave, by slot and by a frame of a DICOM file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_dicom import write

from usucl.gallery import Gallery

NAMES = {"video": "abcde", "patient": ["p1", "p2", "p3"], "label": ["cyst", "stone"]}


@st.composite
def _filters(draw: st.DrawFn) -> dict[str, list[Any]]:
    kinds = ("video", "patient", "label", "exclude_video", "exclude_patient")
    chosen: dict[str, list[Any]] = {
        kind: draw(st.lists(st.sampled_from(NAMES[kind.split("_")[-1]]), max_size=2))
        for kind in draw(st.sets(st.sampled_from(kinds), max_size=3))
    }
    if draw(st.booleans()):
        lo, hi = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
        chosen["time"] = [lo, hi]
    return chosen


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(_filters(), st.integers(0, 18), st.integers(1, 19), st.booleans())
def test_filters_leave_out_what_they_say_and_nothing_else(
    bank: Path, filters: dict[str, list[Any]], slot: int, k: int, one_per_video: bool
) -> None:
    gallery = Gallery.open(bank)

    def passes(s: int) -> bool:
        row = vars(gallery.describe(s))
        for kind, values in filters.items():
            name = kind.split("_")[-1]
            if kind == "time":
                ok = values[0] <= row["time"] <= values[1]
            else:
                ok = not values or (row[name] in values) != kind.startswith("exclude")
            if not ok:
                return False
        return s != slot

    embedding = gallery.bank.frames().embedding
    similarity = (embedding @ embedding[slot]).tolist()
    wanted = sorted(filter(passes, range(19)), key=lambda s: -similarity[s])
    if one_per_video:
        first: dict[int, int] = {}
        for s in wanted:
            first.setdefault(int(gallery.contents.video[s]), s)
        wanted = list(first.values())
    if not wanted:
        with pytest.raises(ValueError, match="nothing is left to search"):
            gallery.search(slot, k=k, one_per_video=one_per_video, **filters)
        return
    found = gallery.search(slot, k=k, one_per_video=one_per_video, **filters).matches
    assert len(found) == min(k, len(wanted))
    # the frames of b and e may tie within rounding: similarities, not slots, are compared
    expected = [similarity[s] for s in wanted[:k]]
    assert [match.similarity for match in found] == pytest.approx(expected, abs=1e-6)
    assert {match.slot for match in found} <= set(filter(passes, range(19)))


def test_search_with_a_dicom_frame(bank: Path, videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "loop.dcm"
    pixels = np.stack([np.array(Image.open(videos / "c" / f"{n}.png")) for n in range(4)])
    write(path, pixels)
    gallery = Gallery.open(bank)
    query, searched, matches = gallery.search(f"{path}@3", k=1)
    assert query.name == "loop.dcm @3" and query.slot is None and searched == 19
    nearest = gallery.describe(matches[0].slot)
    assert (nearest.video, nearest.frame) == ("c", 3)
    with pytest.raises(ValueError, match="has 4 frames"):
        gallery.search(f"{path}@4")
