"""Compressed frames: what their own headers say, checked before a decoder allocates anything."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path

from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from usucl.data.video.base import VideoError
from usucl.data.video.dicom.header import Header

# What decodes each family, its distribution, and the extra of this package that brings it.
_PLUGINS = (
    ((*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes), "libjpeg", "pylibjpeg-libjpeg", "dicom"),
    (tuple(JPEG2000TransferSyntaxes), "openjpeg", "pylibjpeg-openjpeg", "train"),
    ((RLELossless,), "rle", "pylibjpeg-rle", "train"),
)
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}  # JPEG's markers without content
_NO_FRAME = {0xC4, 0xC8, 0xCC}  # among 0xC0 to 0xCF: tables


def check_syntax(path: Path, syntax: UID) -> None:
    """Refuses a way to pack pixels that nothing installed here decodes.

    Raises:
        VideoError: says what to install, if anything helps.
    """
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise VideoError(path, f"its pixels are {syntax.name}, which is not read") from None
    if not available:
        raise VideoError(path, f"its pixels are {syntax.name}: {advice(syntax) or 'not read'}")


def advice(syntax: UID) -> str | None:
    """Returns what to install to decode a syntax; None if it is there."""
    for syntaxes, module, distribution, extra in _PLUGINS:
        if syntax in syntaxes:
            missing = [name for name in ("pylibjpeg", module) if find_spec(name) is None]
            return (
                f"decoding them needs {distribution}: pip install 'usucl[{extra}]'"
                if missing
                else None
            )
    return None


def check_frame(path: Path, header: Header, packed: bytes) -> None:
    """Refuses a compressed frame that is larger than the header of the file says.

    Raises:
        VideoError: it is, or would be once it is decoded.
    """
    dataset = header.dataset
    size = (int(dataset.Columns), int(dataset.Rows))
    samples = int(dataset.get("SamplesPerPixel") or 1)
    raw = size[0] * size[1] * samples * -(-int(dataset.BitsAllocated) // 8)
    most = 2**16 + 2 * raw  # what cannot be packed grows a little, and there may be metadata
    if header.syntax == RLELossless:
        if len(packed) > most or (len(packed) > 2**22 and _unpacked(packed, most) > most):
            raise VideoError(path, f"damaged: a frame unpacks to more than {size[0]}x{size[1]}")
        return
    found = size_of(packed)
    if found is None:
        raise VideoError(path, f"damaged: a frame is not {header.syntax.name}")
    if found[:2] != size:
        raise VideoError(
            path,
            f"damaged: a frame is {found[0]}x{found[1]}, "
            f"not {size[0]}x{size[1]} as the header says",
        )
    if found[2] not in (1, samples):
        raise VideoError(path, f"damaged: a frame has {found[2]} channels, not {samples}")


def size_of(packed: bytes) -> tuple[int, int, int] | None:
    """Returns width, height and channels by the header of a JPEG or JPEG 2000 codestream."""
    at = packed.find(b"\xff\x4f\xff\x51", 0, 4096) if packed[:2] != b"\xff\xd8" else -1
    if at >= 0:
        if len(packed) < at + 42:
            return None
        right, bottom, left, top = struct.unpack_from(">4L", packed, at + 8)
        (channels,) = struct.unpack_from(">H", packed, at + 40)
        return right - left, bottom - top, channels
    if packed[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 10 <= len(packed):
        if packed[at] != 0xFF:
            return None
        marker = packed[at + 1]
        if marker == 0xFF:  # a byte of padding
            at += 1
        elif marker in _NO_LENGTH:
            at += 2
        elif (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME) or marker == 0xF7:  # JPEG-LS
            height, width, channels = struct.unpack_from(">HHB", packed, at + 5)
            return width, height, channels
        else:
            at += 2 + int(struct.unpack_from(">H", packed, at + 2)[0])
    return None


def _unpacked(packed: bytes, most: int) -> int:
    """Returns how many bytes RLE unpacks to, as far as ``most``."""
    at, size = 64, 0
    while at < len(packed) and size <= most:
        count = packed[at]
        size += count + 1 if count < 128 else (257 - count) % 129
        at += count + 2 if count < 128 else 1 + (count > 128)
    return size
