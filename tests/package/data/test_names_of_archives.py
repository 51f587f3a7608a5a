"""Names as archives have them: numbers with points, and tables that change beside the frames."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import stills
from tiny_videos import moving, write

from usucl.data import VideoCatalog
from usucl.data.catalog.identity import known_as


@pytest.mark.parametrize("names", [("1.2.840.113", "1.2.840.114"), ("IMG.001", "IMG.002")])
def test_a_suffix_of_digits_is_part_of_the_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write(tmp_path / name, moving(4), container="mp4")
    (tmp_path / "labels.csv").write_text(f"video_id,label\n{names[0]},ill\n{names[1]},well\n")
    catalog = VideoCatalog.scan(tmp_path)
    assert [(entry.id, entry.label) for entry in catalog] == [(names[0], "ill"), (names[1], "well")]
    assert known_as([tmp_path / names[0]], names) == {names[0]}


def test_times_that_change_beside_frames_are_read_again(tmp_path: Path) -> None:
    folder = stills(tmp_path / "data" / "v", 3)
    assert VideoCatalog.scan(tmp_path / "data").entries[0].frame_rate is None
    (folder / "times.csv").write_text("frame,seconds\n0.png,0\n1.png,0.5\n2.png,1\n")
    assert VideoCatalog.scan(tmp_path / "data").entries[0].frame_rate == 2
    (folder / "times.csv").write_text("frame,seconds\n0.png,0\n1.png,1\n2.png,2\n")
    assert VideoCatalog.scan(tmp_path / "data").entries[0].frame_rate == 1
