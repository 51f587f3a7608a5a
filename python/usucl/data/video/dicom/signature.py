"""Telling DICOM files by their content: devices name them IM_0001, I0000002 or scan.ima."""

from __future__ import annotations

import struct
from pathlib import Path

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
DIRECTORY = "DICOMDIR"  # a file that lists the others, without pictures

_PREAMBLE = 128
_FIRST_GROUPS = {0x0002, 0x0008}
_LONG_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"}
_VRS = _LONG_VRS | set(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US SV UV".split()
)


def is_dicom(path: Path) -> bool:
    """Returns whether a file is DICOM by its content, whatever its name."""
    try:
        with path.open("rb") as file:
            return first_element(file.read(4096)) is not None
    except OSError:
        return False


def first_element(head: bytes) -> int | None:
    """Returns where the elements of a DICOM file begin, None if ``head`` begins no such file.

    Files without the usual preamble are known by two elements in a row that belong to the first
    groups, increase, and have sensible types and lengths.
    """
    if head[_PREAMBLE : _PREAMBLE + 4] == b"DICM":
        return _PREAMBLE + 4
    for order in "<>":
        first = _element(head, 0, order)
        second = _element(head, first[1], order) if first else None
        if first and second and first[0][0] in _FIRST_GROUPS and first[0] < second[0] < (16, 0):
            return 0
    return None


def _element(head: bytes, at: int, order: str) -> tuple[tuple[int, int], int] | None:
    """Returns the tag of an element and where the next begins."""
    if len(head) < at + 12:
        return None
    group, element, vr, short = struct.unpack_from(f"{order}HH2sH", head, at)
    if vr in _LONG_VRS:
        end = at + 12 + int(struct.unpack_from(f"{order}L", head, at + 8)[0])
    elif vr in _VRS:
        end = at + 8 + short
    else:
        end = at + 8 + int(struct.unpack_from(f"{order}L", head, at + 4)[0])
    return ((group, element), end) if end > at + 8 and end % 2 == 0 else None
