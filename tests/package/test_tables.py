"""Tables: no cell is a formula to a spreadsheet, and every text comes back as it was."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from usucl._files import DamagedFileError
from usucl._tables import guard, read_table, unguard, write_table

FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    " =1",
    "\t=1",
    "\r=1",
    "\uff1d1",
    "-",
    "--5",
]
HARMLESS = ["", "a", "a=b", "-5", "+0.5", "-1e-3", "'quoted'", "p1", "0", "nan"]


@given(st.text())
@example("'=1")
@example("''-x")
def test_every_text_comes_back(text: str) -> None:
    assert unguard(guard(text)) == text


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_text_to_a_spreadsheet(text: str) -> None:
    assert guard(text) == f"'{text}"


@pytest.mark.parametrize("text", HARMLESS)
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert guard(text) == text


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    odd = ["=1", "'=1", "a,b", 'a"b', "a\nb", "a\rb", "\ud8ff".encode("utf-8", "surrogatepass")]
    texts = [t if isinstance(t, str) else t.decode("utf-8", "surrogateescape") for t in odd]
    write_table(path, ("text", "number"), [(text, -1.5) for text in texts])
    assert [row["text"] for row in read_table(path)] == texts
    assert {row["number"] for row in read_table(path)} == {"-1.5"}
    with path.open(newline="", errors="replace") as file:
        assert not any(cell.startswith("=") for row in csv.reader(file) for cell in row)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no column id"),
        (b"name\na\n", "no column id"),
        (b"id,part\na\n", "a row has 1 cells, not 2"),
        (b"id,part\na,b,c\n", "a row has 3 cells, not 2"),
        (b'id,part\na,"b\n', "line 2"),
        (b'id,part\n"' + b"x" * 200_000 + b'",b\n', "line 2: field larger"),
    ],
)
def test_damage_names_the_file(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=rf"{re.escape(str(path))}.*{said}"):
        read_table(path, ["id"])


def test_only_a_growing_table_may_end_within_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("step,loss\n1,0.5\n2,0.")
    assert read_table(path, growing=True) == [{"step": "1", "loss": "0.5"}]
    path.write_text("step,loss\n1,0.5\n2")
    assert len(read_table(path, growing=True)) == 1
    with pytest.raises(DamagedFileError, match="a row has 1 cells"):
        read_table(path)
