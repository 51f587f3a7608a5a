"""CSV tables of this package, in which no text is a formula to a spreadsheet.

A text that a spreadsheet would run, such as ``=HYPERLINK(...)``, is written with an apostrophe in
front, which :func:`read_table` takes away again: every text comes back as it was.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from usucl._files import DamagedFileError, write_atomically

# A number is no formula, though it may begin with a sign. The wide forms of the four characters,
# which Asian keyboards have, are taken for them by some spreadsheets.
_FORMULA = re.compile(
    r"'*(?!\s*[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*\Z)"
    r"(\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])"
)


def guard(text: str) -> str:
    """Returns what a spreadsheet shows as ``text``; :func:`unguard` gives ``text`` back."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguard(cell: str) -> str:
    """Returns the text of which :func:`guard` made ``cell``."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file in one piece, its texts guarded; None is an empty cell.

    Raises:
        OSError: the file cannot be written; an earlier version is untouched.
    """
    lines = io.StringIO()
    for row in (header, *rows):
        lines.write(table_line(row))
    write_atomically(path, lines.getvalue().encode("utf-8", "surrogateescape"))


def table_line(row: Sequence[object]) -> str:
    """Returns one line of a table, its texts guarded."""
    line = io.StringIO()
    # Only with its own line ends does csv quote carriage returns in every version of Python.
    csv.writer(line).writerow([guard(cell) if isinstance(cell, str) else cell for cell in row])
    return line.getvalue().removesuffix("\r\n") + "\n"


def read_table(
    path: Path, columns: Sequence[str] = (), *, growing: bool = False
) -> list[dict[str, str]]:
    """Reads the rows of a CSV file by column, with the texts that were written.

    Args:
        path: the file, in UTF-8; names of files keep the bytes that are not UTF-8.
        columns: columns that must be there.
        growing: lines are added one by one, so the last may be cut short, and is then left out.

    Raises:
        DamagedFileError: a column or a cell is missing, or the file is no CSV.
        FileNotFoundError: there is no such file.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = file.readlines()
        if growing and lines and not lines[-1].endswith("\n"):
            lines.pop()
        reader = csv.reader(lines, strict=True)
        try:
            header, *rows = [row for row in reader if row] or [[]]
        except csv.Error as error:
            raise DamagedFileError(path, f"line {reader.line_num}: {error}") from error
    if missing := [name for name in columns if name not in header]:
        raise DamagedFileError(path, f"it has no column {', '.join(missing)}")
    for row in rows:
        if len(row) != len(header):
            raise DamagedFileError(path, f"a row has {len(row)} cells, not {len(header)}: {row}")
    return [dict(zip(header, map(unguard, row), strict=True)) for row in rows]
