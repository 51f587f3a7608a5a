"""What kind of video a file is by its first bytes, whatever its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeAlias

from usucl.data.video.dicom.signature import first_element

Kind: TypeAlias = Literal["container", "dicom", "image", "packed"]

_HEAD = 4096  # bytes
_IMAGES = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|BM.{12}[\x0c\x28\x6c\x7c]\0\0\0|II\*\0|MM\0\*|"
                     rb"RIFF.{4}WEBP", re.DOTALL)  # fmt: skip
# AVIF, HEIC and sound share the structure of MP4.
_MP4 = re.compile(rb"\0\0..(ftyp(?!avif|hei[cx]|mif1|M4[AB] )|moov|wide|mdat|pnot)", re.DOTALL)
_CONTAINERS = re.compile(
    rb"RIFF.{4}AVI |GIF8[79]a|\x1a\x45\xdf\xa3|\x30\x26\xb2\x75\x8e\x66\xcf\x11|"  # MKV, WMV
    rb"\0\0\x01[\xb0\xb3\xba]|FLV\x01|DKIF\0\0|YUV4MPEG2 |nut/multimedia container\0|"  # MPEG, IVF
    rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02|"  # MXF
    rb"\0\0\0?\x01[\x27\x47\x67]|\0\0\0?\x01\x40\x01\x0c|"  # bare H.264 and H.265
    rb"\xb7\xd8\0\x20\x37\x49\xda\x11|\.RMF\0\0",  # WTV, RealMedia
    re.DOTALL,
)
_PACKED = re.compile(
    rb"PK\x03\x04|\x1f\x8b\x08|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|BZh[1-9]1AY|\xfd7zXZ\0|"
    rb"\x28\xb5\x2f\xfd|.{257}ustar",
    re.DOTALL,
)
PACKED = "an archive or a compressed file, such as .zip or .gz: unpack it first"
_TRANSPORT = ((0, 188), (4, 192))  # MPEG-TS: the first packet's place, and the packets' length
_OGG_VIDEO = re.compile(rb"\x80theora|\x01video\0|OVP80|BBCD")


def kind_of(path: Path) -> Kind | None:
    """Returns the kind of a file by its first bytes, None if they are of no known kind.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        head = file.read(_HEAD)
    if first_element(head) is not None:
        return "dicom"
    if _IMAGES.match(head):
        return "image"
    if _CONTAINERS.match(head) or _MP4.match(head) or _is_transport_stream(head):
        return "container"
    if head.startswith(b"OggS") and _OGG_VIDEO.search(head):
        return "container"
    return "packed" if _PACKED.match(head) else None


def is_packed(path: Path) -> bool:
    """Returns whether a file is an archive of files, or a compressed one."""
    try:
        return path.is_file() and kind_of(path) == "packed"
    except OSError:
        return False


def _is_transport_stream(head: bytes) -> bool:
    """Returns whether packets of MPEG-TS follow each other."""
    return any(
        len(syncs := head[start::length]) >= 5 and set(syncs) == {0x47}
        for start, length in _TRANSPORT
    )
