"""Tables that people write: CSV files as any spreadsheet saves them."""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

LARGEST = 2**28  # bytes of a table; a row of frame_labels.csv has about 20
SEPARATORS = ",;\t|"
_MARKS = (  # the longer of two marks that begin alike comes first
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"


class Sheet(NamedTuple):
    """A table that is read row by row.

    Attributes:
        header: the first row, as written.
        columns: what each cell of the header means: a known column, or itself.
        rows: (line, cells) of every row that is not empty; ``line`` is where it begins.
    """

    header: list[str]
    columns: list[str]
    rows: Iterator[tuple[int, list[str]]]


def read_rows(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line, row): the cells of the known columns, without blanks around them.

    Raises:
        ValueError: see :func:`read_sheet`; a cell of a known column holds a line break.
    """
    sheet = read_sheet(path, required, optional)
    wanted = [(i, n) for i, n in enumerate(sheet.columns) if n in (*required, *optional)]
    for line, cells in sheet.rows:
        row = dict.fromkeys(optional, "") | {name: tidy(cells[i]) for i, name in wanted}
        for name, text in row.items():
            if "\n" in text or "\r" in text:
                raise _error(path, line, f"{name} holds a line break: {_OPEN_QUOTE}")
        yield line, row


def read_sheet(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Sheet:
    """Reads a table in UTF-8, UTF-16, UTF-32 or else cp1252, separated by , ; tab or |.

    Columns are known by their names, whatever their case and the blanks in and around them.

    Raises:
        ValueError: the file is no such table, lacks a column or has it twice, or a row has too
            many cells or a quotation mark that is never closed; names the file and the line.

    Warns:
        UserWarning: the table is not in UTF-8 with commas, or rows have too few cells.
    """
    text, encoding = _text(path)
    first, _, rest = text.partition("\n")
    told = re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE)  # a line that Excel understands
    if told:
        text = rest
    known = {squeezed(name): name for name in (*required, *optional)}
    separator = told[1] if told else _separator(text, known)
    if encoding != "utf-8" or separator != ",":
        warnings.warn(
            f"{path.name}: read as {encoding} with {separator!r} between the columns; save it as "
            "UTF-8 with commas if a cell comes out wrong",
            stacklevel=5,
        )
    rows = _rows(path, text, separator, before=1 if told else 0)
    line, header = next(rows, (1, [""]))
    columns = [known.get(squeezed(cell), tidy(cell)) for cell in header]
    if missing := [name for name in required if name not in columns]:
        others = ", ".join(filter(None, columns)) or "none"
        raise ValueError(
            f"{path.name} must have the columns {', '.join(required)}; "
            f"missing: {', '.join(missing)} (its columns are {others})"
        )
    if twice := [n for n, count in Counter(columns).items() if count > 1 and n in known.values()]:
        raise _error(path, line, f"there are two columns {twice[0]!r}")
    return Sheet(header, columns, _of_one_width(path, columns, separator, rows))


def tidy(cell: str) -> str:
    """Returns a cell without blanks and invisible characters around it."""
    return cell.strip().strip(_INVISIBLE).strip()


def _text(path: Path) -> tuple[str, str]:
    """Returns the text of a file, and its encoding."""
    size = path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"{path.name} must have at most {LARGEST} bytes, got {size}")
    content = path.read_bytes()
    encodings = ["utf-8", "cp1252"]
    for mark, name in _MARKS:
        if content.startswith(mark):
            content, encodings = content[len(mark) :], [name]
            break
    else:
        if b"\0" in content[:2]:  # UTF-16 without a mark: each letter of the header has a zero
            encodings = ["utf-16-be" if content[:1] == b"\0" else "utf-16-le"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            line = max(1, len(content[: error.start + 1].splitlines()))
            continue
        if "\0" in text:
            line = 1 + text.count("\n", 0, text.index("\0"))
            raise _error(path, line, "it is no text: export the table as CSV in UTF-8")
        return text, encoding
    raise _error(path, line, f"it is no text in {' or '.join(encodings)}: save it as UTF-8")


def _separator(text: str, known: dict[str, str]) -> str:
    """Returns the separator that makes most known columns, or else most, out of the header."""
    start = text[: 1 << 16].lstrip()

    def found(separator: str) -> tuple[int, int]:
        reader = csv.reader(io.StringIO(start, newline=""), delimiter=separator)
        try:
            cells = next(reader, [])
        except csv.Error:
            return 0, 0
        return len({squeezed(cell) for cell in cells} & set(known)), len(cells)

    return max(SEPARATORS, key=found)


_OPEN_QUOTE = "is a quotation mark never closed?"


def _rows(path: Path, text: str, separator: str, *, before: int) -> Iterator[tuple[int, list[str]]]:
    """Yields (line, cells) of the rows that are not empty, the header among them."""
    # A strict reader sees quotation marks that are never closed, but also takes offence at blanks
    # after those that are.
    text = re.sub(rf'" +(?=[{re.escape(separator)}\r\n]|\Z)', '"', text)
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    line = before + 1
    try:
        for cells in reader:
            if any(map(tidy, cells)):
                yield line, cells
            line = before + reader.line_num + 1
    except csv.Error as error:
        raise _error(path, line, f"{_OPEN_QUOTE} ({error})") from error


def _of_one_width(
    path: Path, columns: list[str], separator: str, rows: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:
    """Fills short rows, of which spreadsheets leave out empty cells, and refuses long ones."""
    width = 1 + max(i for i, name in enumerate(columns) if name)
    short: list[int] = []
    for line, cells in rows:
        if any(map(tidy, cells[len(columns) :])):
            raise _error(
                path,
                line,
                f"there are {len(cells)} cells, but {len(columns)} columns: put a cell that holds "
                f"{separator!r} in quotation marks",
            )
        if len(cells) < width:
            short.append(line)
        yield line, cells + [""] * (len(columns) - len(cells))
    if short:
        lines = ", ".join(map(str, short[:5])) + (" ..." if len(short) > 5 else "")
        warnings.warn(
            f"{path.name}: {len(short)} rows have fewer cells than the header, so the last are "
            f"taken as empty: line {lines}",
            stacklevel=5,
        )


def squeezed(name: str) -> str:
    """Returns the letters and digits of a column's name: "Video ID" is video_id."""
    return "".join(c for c in name.casefold() if c.isalnum())


def _error(path: Path, line: int, what: str) -> ValueError:
    return ValueError(f"{path.name}: line {line}: {what}")
