"""Where the frames of a DICOM file lie, found without decoding them."""

from __future__ import annotations

import io
import struct
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from pydicom.uid import RLELossless

from usucl.data.video.base import VideoError
from usucl.data.video.dicom.header import Header, Source
from usucl.data.video.limits import check_cost, limit

Span: TypeAlias = tuple[int, int]
"""Where bytes lie in a file: their offset and number."""

_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF  # length of compressed pixels
_CODESTREAMS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")  # JPEG, JPEG 2000, JP2


class Frames(NamedTuple):
    """The whole frames of a file.

    Attributes:
        whole: how many there are.
        packed: of compressed frames, the fragments of each; None if they are not compressed.
        trouble: what is missing, too much or broken, in words.
    """

    whole: int
    packed: list[list[Span]] | None
    trouble: str | None


def find_frames(path: Path, source: Source, header: Header) -> Frames:
    """Finds the frames of a file; what they would cost is checked.

    Raises:
        VideoError: there is no whole frame, or too much.
    """
    rows, columns = int(header.dataset.Rows), int(header.dataset.Columns)
    check_cost(path, columns, rows)
    source.seek(header.begin)
    if header.syntax.is_encapsulated:
        fragments, trouble = _fragments(path, source)
        packed = _grouped(source, header, fragments)
        if trouble and any(len(frame) > 1 for frame in packed):
            packed = packed[:-1]  # nothing tells whether the last frame is whole
        count = len(packed)
    elif header.length == _UNDEFINED:
        raise VideoError(path, "damaged: its pixels are compressed, its header says they are not")
    else:
        packed = None
        count, trouble = _uncompressed(source, header)
    if header.frames is None:
        trouble = trouble or f"its number of frames is unreadable, {count} are there"
    elif count < header.frames:
        told = f"{count} of {header.frames} frames are there"
        trouble = f"{trouble}; {told}" if trouble else told
    elif count > header.frames:
        trouble = f"{count} frames are there, but its header says {header.frames}"
    if not count:
        raise VideoError(path, f"damaged: {trouble or 'it has no frame'}")
    check_cost(path, columns, rows, count)
    return Frames(count, packed, trouble)


def _uncompressed(source: Source, header: Header) -> tuple[int, str | None]:
    """Returns how many whole frames there are, and what is wrong."""
    bits = frame_bits(header)
    there = min(header.length, source.left)
    count = 8 * there // bits
    if header.frames is None:
        return count, None
    needed = -(-bits * header.frames // 8)
    if there < needed:
        return count, f"cut short: {there} of {needed} bytes of pixels"
    # What is left over may be padding, as long as it is no frame.
    left = 8 * (there - needed) // bits if there - needed > 1 else 0
    return header.frames + left, None


def frame_bits(header: Header) -> int:
    """Returns the size of an uncompressed frame."""
    dataset = header.dataset
    samples = int(dataset.get("SamplesPerPixel") or 1)
    bits = int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated)
    return bits // 3 * 2 if is_halved(header) else bits


def is_halved(header: Header) -> bool:
    """Returns whether two pixels share their colour; a file may say so though they do not."""
    dataset = header.dataset
    if dataset.get("PhotometricInterpretation") != "YBR_FULL_422" or header.syntax.is_encapsulated:
        return False
    full = 3 * int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
    return header.length < full * (header.frames or 1)


def _fragments(path: Path, source: Source) -> tuple[list[Span], str | None]:
    """Returns the fragments of compressed pixels, the table of offsets first, and what is wrong."""
    fragments: list[Span] = []
    most = 8 * limit("USUCL_MAX_FRAMES")
    while len(head := source.read(8)) == 8:
        group, element, length = struct.unpack("<HHL", head)
        if group << 16 | element == _END:
            return fragments, None
        if group << 16 | element != _ITEM:
            return fragments, "its pixels are not in fragments"
        if length > source.left:
            break
        if len(fragments) == most:
            raise VideoError(path, f"too large: its pixels are in more than {most} fragments")
        fragments.append((source.tell(), length))
        source.seek(length, io.SEEK_CUR)
    return fragments, "cut short: its pixels have no end"


def _grouped(source: Source, header: Header, fragments: list[Span]) -> list[list[Span]]:
    """Returns the fragments of each frame.

    Tables of offsets may be missing or wrong, and frames may be in several fragments, so of several
    ways to tell where frames begin the first is taken that gives the number that the file states.
    """
    if not fragments:
        return []
    table, rest = fragments[0], [span for span in fragments[1:] if span[1]]
    if header.syntax == RLELossless:  # which never splits a frame
        return [[span] for span in rest]
    ways = [begins for begins in (_by_table(source, header, table, rest),) if begins]
    ways.append(list(range(len(rest))))
    for begins in ways:
        if len(begins) == header.frames:
            return _cut(rest, begins)
    begins = []
    for number, (offset, length) in enumerate(rest):
        source.seek(offset)
        if source.read(min(length, 12)).startswith(_CODESTREAMS):
            begins.append(number)
    return _cut(rest, begins or ways[0])


def _by_table(source: Source, header: Header, table: Span, rest: list[Span]) -> list[int] | None:
    """Returns which fragments begin a frame by the file's own table; None without a sound one."""
    if header.options.get("extended_offsets"):
        packed, width = header.options["extended_offsets"][0], 8
    else:
        source.seek(table[0])
        packed, width = source.read(table[1]), 4
    offsets = np.frombuffer(packed[: len(packed) // width * width], f"<u{width}").tolist()
    start = sum(table)
    places = {offset - 8 - start: number for number, (offset, _) in enumerate(rest)}
    if not offsets or offsets[0] or any(b <= a for a, b in pairwise(offsets)):
        return None
    if not places.keys() >= set(offsets):
        return None
    return [places[offset] for offset in offsets]


def _cut(rest: list[Span], begins: list[int]) -> list[list[Span]]:
    return [rest[a:b] for a, b in pairwise([*begins, len(rest)])]
