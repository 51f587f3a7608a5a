"""Tables at every width: names are whole, and a pipe has one line per row."""

from __future__ import annotations

import io
import re
import sys

import pytest

from usucl._terminal import table
from usucl.cli.bank_views import BRIEF

LONG = "Pneu_northumbria_0409_set3_vid1_crossplanelinear"
PAIRS = [
    ("0.9876", "alike", "0.123", (f"{LONG} @7", f"{LONG}2 @12"), "unknown"),
    ("0.9871", "unreadable", "-", ("a @2", "b @103"), "OTHER"),
]
COLUMNS = ["similarity", "picture", "correlation", "frame and frame", "patient"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, columns: int | None, rows: object = PAIRS) -> list[str]:
    """Returns the lines of the table of pairs in a terminal of that width, or in a pipe."""
    printed = Terminal() if columns else io.StringIO()
    monkeypatch.setattr(sys, "stdout", printed)
    monkeypatch.setenv("COLUMNS", str(columns or 80))
    numbers = ["similarity", "correlation"]
    table(COLUMNS, rows, title="Most similar", numbers=numbers, brief=BRIEF)  # type: ignore[arg-type]
    return re.sub(r"\x1b\[\d+m", "", printed.getvalue()).splitlines()


@pytest.mark.parametrize("columns", [12, 24, 40, 60, 80, 100, 140, 300, None])
def test_names_and_numbers_are_whole(monkeypatch: pytest.MonkeyPatch, columns: int | None) -> None:
    lines = drawn(monkeypatch, columns)
    text = "\n".join(lines)
    assert "…" not in text
    if columns:
        assert max(map(len, lines)) <= columns
    if columns is None or columns >= 24:
        assert all(number in text for number in ("0.9876", "0.123", "0.9871"))
    squeezed = "".join(text.split())
    for row in PAIRS:
        for name in row[3]:
            letters = iter(squeezed)
            assert all(letter in letters for letter in "".join(name.split()))


def test_a_pipe_has_one_line_per_row(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = drawn(monkeypatch, None)
    assert len(lines) == 2 + 1 + len(PAIRS) + 1  # title and headings, rule, rows, an empty line
    assert f"{LONG} @7  {LONG}2 @12" in lines[3]


def test_numbers_shrink_before_names_break(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "similarity" in drawn(monkeypatch, 160)[1]
    headings = drawn(monkeypatch, 95)[1]
    assert "sim." in headings and "similarity" not in headings
    assert any(f"{LONG}2 @12" in line for line in drawn(monkeypatch, 95))
    assert "similarity" in drawn(monkeypatch, 40)[1]  # a list, in which there is room


def test_a_table_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, 80, [])[1].split() == " ".join(COLUMNS).split()


def test_lines_of_a_file_do_not_end_in_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    table(["name", "reason"], [("a", "short"), ("b", "a much longer reason")], title="Videos")
    table(["name", "reason"], [("a", "short"), ("b", "a much longer reason")], stderr=True)
    said = capsys.readouterr()
    assert "a     short\n" in said.out and "short" in said.err
    assert not [line for line in (said.out + said.err).splitlines() if line.endswith(" ")]
