"""Whether the parts of a container follow each other without a hole, which FFmpeg passes over.

FFmpeg searches for the next part that it can read, and says nothing of those in between. Each
function here walks over the parts, whose contents it does not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def hole(path: Path, container: str) -> str | None:
    """Returns where the structure of a file is broken, in words; None if it is whole.

    Args:
        path: the file.
        container: FFmpeg's name of its format; only those of AVI, GIF, Matroska and WMV are known.
    """
    for name, walk in _WALKS.items():
        if container.startswith(name):
            size = path.stat().st_size
            with path.open("rb") as file:
                end = walk(file, size)
            return None if end is None else f"its structure breaks off at byte {end} of {size}"
    return None


def _gif(file: BinaryIO, size: int) -> int | None:
    header = file.read(13)
    if header[10] & 0x80:
        file.seek(3 << (1 + (header[10] & 7)), 1)
    while (at := file.tell()) < size:
        kind = file.read(1)
        if kind == b";":
            return None
        if kind == b"!":
            file.seek(1, 1)
        elif kind == b"," and len(place := file.read(9)) == 9:
            file.seek((3 << (1 + (place[8] & 7)) if place[8] & 0x80 else 0) + 1, 1)
        else:
            return at
        while length := file.read(1):  # of a sub-block, 0 after the last
            if length == b"\0":
                break
            file.seek(length[0], 1)
    return size


def _avi(file: BinaryIO, size: int) -> int | None:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        kind, length = file.read(4), int.from_bytes(file.read(4), "little")
        form = file.read(4) if kind in (b"RIFF", b"LIST") else b""
        if form in (b"AVI ", b"AVIX", b"movi", b"rec "):
            at += 12  # its parts follow; writers that were never told the length leave it wrong
            continue
        if not re.fullmatch(rb"[0-9]{2}[a-z]{2}|ix[0-9]{2}|LIST|JUNK|junk|idx1|[A-Z]{4}", kind):
            return None if at > 0 and _after_the_end(file, at) else at
        at += 8 + length + length % 2
    return size if at > size + 1 else None


def _after_the_end(file: BinaryIO, at: int) -> bool:
    """Returns whether nothing but zeros is left, as recorders leave it behind an index."""
    file.seek(at)
    return not file.read(1 << 20).strip(b"\0")


_EBML_MASTERS = {0x18538067, 0x1F43B675}  # Segment, Cluster: their parts are walked over
_EBML_PARTS = {
    0x1A45DFA3, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770,
    0x1254C367, 0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF,
}  # fmt: skip


def _matroska(file: BinaryIO, size: int) -> int | None:
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(12)
        width = 9 - head[0].bit_length()  # of the ID, in bytes
        part = int.from_bytes(head[:width], "big")
        if width > 4 or part not in _EBML_PARTS | _EBML_MASTERS or len(head) <= width:
            return at
        length_width = 9 - head[width].bit_length()
        if length_width > 8:
            return at
        at += width + length_width
        if part not in _EBML_MASTERS:
            length = head[width : width + length_width]
            at += int.from_bytes(length, "big") & ((1 << 7 * length_width) - 1)
    return size if at > size else None


_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def _asf(file: BinaryIO, size: int) -> int | None:
    file.seek(16)
    start = int.from_bytes(file.read(8), "little")
    file.seek(0)
    header = file.read(min(start, 1 << 20))
    file.seek(start)
    data = file.read(50)
    properties = header.find(_ASF_FILE)
    if data[:16] != _ASF_DATA or properties < 0:
        return start
    length = int.from_bytes(header[properties + 92 : properties + 96], "little")
    count = int.from_bytes(data[40:48], "little")
    if not length:
        return None
    objects: dict[int, int] = {}  # last media object by stream
    for number in range(count or (size - start - 50) // length):
        at = start + 50 + number * length
        if len(packet := file.read(length)) < length or not _asf_packet(packet, objects):
            return min(at, size)
    return None


def _asf_packet(packet: bytes, objects: dict[int, int]) -> bool:
    """Returns whether the media objects of a packet carry on from those before it."""
    at = 0

    def number(kind: int) -> int:
        nonlocal at
        width = (0, 1, 2, 4)[kind & 3]
        at += width
        return int.from_bytes(packet[at - width : at], "little")

    if packet[0] & 0x80:
        at = 1 + (packet[0] & 15)
    flags, kinds = packet[at], packet[at + 1]
    at += 2
    number(flags >> 5)
    number(flags >> 1)
    padding = number(flags >> 3)
    at += 6
    payloads, several = 1, flags & 1
    if several:
        payloads, lengths = packet[at] & 63, packet[at] >> 6
        at += 1
    for _ in range(payloads):
        if at >= len(packet):
            return False
        stream = packet[at] & 127
        at += 1
        media_object = number(kinds >> 4)
        number(kinds >> 2)
        replicated = number(kinds)
        at += 0 if replicated == 1 else replicated
        if not stream or (media_object - objects.get(stream, media_object)) % 256 > 1:
            return False
        if replicated != 1:  # otherwise many small objects are in one payload
            objects[stream] = media_object
        if several:
            length = number(lengths)
            at += length
    return at + padding <= len(packet)


_WALKS: dict[str, Callable[[BinaryIO, int], int | None]] = {
    "asf": _asf,
    "avi": _avi,
    "gif": _gif,
    "matroska": _matroska,
}
