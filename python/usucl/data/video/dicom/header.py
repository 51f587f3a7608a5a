"""Single frames of DICOM files, as they are meant to be displayed."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from pydicom import Dataset
from pydicom.datadict import DicomDictionary
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from torch import Tensor

from usucl.data.dicom_files import first_element
from usucl.data.video import VideoError
from usucl.data.video.limits import check_cost, limit

_KEYWORDS = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
_OFFSET_TABLES = (0x7FE00001, 0x7FE00002)
_TAGS: list[Any] = [tag for tag in DicomDictionary if tag >> 16 == 0x0028] + [*_OFFSET_TABLES]
_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_PRIMARIES = ("Red", "Green", "Blue")
_MOST_READS = 400_000  # of a header: one of endless small elements takes minutes


def dicom_frame(path: Path, index: int | None = None) -> tuple[Tensor, int]:
    """Returns frame ``index`` (the middle one for None) as uint8 [3, H, W] RGB, and its number.

    YBR is converted to RGB, palettes are looked up, grey values go through the file's modality and
    window tables and are spread over 0 to 255. Only this frame is read; what it costs is checked
    against the limits in ``usucl.data.video.limits`` before.

    Raises:
        VideoError: the file is not DICOM, is damaged or cut short, has no pixels, has pixels that
            cannot be decoded, or costs too much.
        IndexError: the file has no such frame.
    """
    with contextlib.ExitStack() as stack:
        with _one_sentence(path):
            file = _open(path, _Source(stack.enter_context(path.open("rb"))))
            frames = int(file.dataset.get("NumberOfFrames") or 1)
        number = frames // 2 if index is None else index
        if not 0 <= number < frames:
            raise IndexError(f"{path} has {frames} frames, got @{number}")
        with _one_sentence(path):
            return _displayed(_stored(path, file, frames, number), file.dataset), number


@contextlib.contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Turns whatever damage makes pydicom raise, of any type, into a VideoError, without noise."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except VideoError:
        raise
    except OSError as error:
        raise VideoError(path, f"cannot be read ({error.strerror or error})") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise VideoError(path, f"cannot be decoded ({reason})") from error


class _Source:
    """A file that is read no further than its end, whatever length its header states."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.end = file.seek(0, io.SEEK_END)
        file.seek(0)
        self.seek = file.seek
        self.tell = file.tell
        self.reads_left: float = _MOST_READS

    @property
    def left(self) -> int:
        return max(0, self.end - self.tell())

    def read(self, size: int | None = -1) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise ValueError("the header has too many elements")
        return self._file.read(self.left if size is None or size < 0 else min(size, self.left))


class _Opened(NamedTuple):
    """A DICOM file up to its pixels, at which ``source`` stands; ``length`` is theirs, stated."""

    source: _Source
    dataset: Dataset
    syntax: UID
    options: dict[str, Any]
    length: int


def _open(path: Path, source: _Source) -> _Opened:
    start = first_element(source.read(4096))
    if start is None:
        raise VideoError(path, "not a DICOM file")
    source.seek(start)
    meta = FileMetaDataset(_elements(source, ExplicitVRLittleEndian, groups={0x0002}))
    syntax = meta.get("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        source, syntax = _Source(_inflated(path, source)), ExplicitVRLittleEndian
    dataset = _elements(source, syntax or ImplicitVRLittleEndian)
    implicit, little = dataset.original_encoding
    if syntax is None:
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        syntax = syntax if little else ExplicitVRBigEndian
    dataset.file_meta = meta
    meta.TransferSyntaxUID = syntax
    order = "<" if little else ">"
    head = source.read(8 if implicit else 12)
    if len(head) < 8 or (not implicit and len(head) < 12):
        raise VideoError(path, "the file has no picture, or is cut before it")
    group, element = struct.unpack_from(f"{order}HH", head)
    (length,) = struct.unpack(f"{order}L", head[-4:])
    options = as_pixel_options(dataset, pixel_keyword=_KEYWORDS[group << 16 | element])
    options["pixel_vr"] = "OW" if implicit else head[4:6].decode()
    source.reads_left = math.inf  # of the pixels only one frame is read
    return _Opened(source, dataset, syntax, options, length)


def _elements(source: _Source, syntax: UID, groups: set[int] | None = None) -> Dataset:
    """Reads the elements before the pixels, or those of the first ``groups``."""

    def stop(tag: Any, _: str | None, __: int) -> bool:
        return tag in _KEYWORDS if groups is None else tag.group not in groups

    return read_dataset(
        source,  # type: ignore[arg-type]
        syntax.is_implicit_VR,
        syntax.is_little_endian,
        stop_when=stop,
        specific_tags=_TAGS if groups is None else None,
    )


def _inflated(path: Path, source: _Source) -> io.BytesIO:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    whole, most, step = io.BytesIO(), limit("USUCL_MAX_INFLATED_BYTES"), 1 << 24
    while not inflater.eof and (packed := source.read(step)):
        piece = packed
        while packed or len(piece) == step:  # as much may be pending, with nothing left to read
            piece = inflater.decompress(packed, step)
            packed = inflater.unconsumed_tail
            whole.write(piece)
            if whole.tell() > most:
                raise VideoError(
                    path,
                    f"inflates to more than {most} bytes; set USUCL_MAX_INFLATED_BYTES to raise "
                    "this",
                )
    if not inflater.eof:
        raise VideoError(path, "cut short: its deflated data have no end")
    return whole


def _stored(path: Path, file: _Opened, frames: int, number: int) -> np.ndarray:
    """Returns the stored values of one frame, [H, W] or [H, W, 3]."""
    source, dataset, syntax, options, length = file
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    check_cost(path, columns, rows)
    begin = source.tell()
    shift = 0
    if syntax.is_encapsulated:
        _check_fragments(path, source)
        source.seek(begin)
        packed = get_frame(
            source,
            number,
            number_of_frames=frames,
            extended_offsets=options.get("extended_offsets"),
        )
        _check_frame(path, syntax, packed, dataset)
    else:
        samples = int(dataset.get("SamplesPerPixel") or 1)
        full = rows * columns * samples * int(dataset.BitsAllocated)
        halved = dataset.PhotometricInterpretation == "YBR_FULL_422"
        stated = -(-full * frames // 8)
        needed = stated // 3 * 2 if halved else stated
        there = min(length, source.left)
        if there < needed:
            raise VideoError(path, f"cut short: {there} of {needed} bytes of pixels")
        if halved and there >= stated:
            raise VideoError(path, "pixels are in YBR_FULL_422, but too many for it")
        shift = int(dataset.get("HighBit") or 0) + 1 - int(dataset.get("BitsStored") or 0)
        if shift > 0:  # the values stand in the high bits of their words
            options |= {"bits_stored": int(dataset.HighBit) + 1}
    source.seek(begin)
    pixels, _ = get_decoder(syntax).as_array(source, index=number, **options)  # type: ignore
    return pixels >> shift if shift > 0 else pixels


def _check_fragments(path: Path, source: _Source) -> None:
    while len(head := source.read(8)) == 8:
        group, element, length = struct.unpack("<HHL", head)
        if group << 16 | element == _END:
            return
        if group << 16 | element != _ITEM:
            raise VideoError(path, "damaged: the pixels are not in fragments")
        if length > source.left:
            break
        source.seek(length, io.SEEK_CUR)
    raise VideoError(path, "cut short: its pixels have no end")


def _check_frame(path: Path, syntax: UID, packed: bytes, dataset: Dataset) -> None:
    """Refuses a frame that is larger than the header says, before it is decoded."""
    size = (int(dataset.Columns), int(dataset.Rows))
    if syntax == RLELossless:
        words = int(dataset.get("SamplesPerPixel") or 1) * int(dataset.BitsAllocated) // 8
        most = 1024 + 2 * size[0] * size[1] * words  # RLE adds 1 % to what it cannot pack
        if len(packed) > most or (len(packed) > 2**22 and _unpacked(packed, most) > most):
            raise VideoError(path, f"damaged: a frame unpacks to more than {size[0]}x{size[1]}")
        return
    try:
        with Image.open(io.BytesIO(packed)) as image:
            if image.size != size:
                raise VideoError(
                    path,
                    f"damaged: a frame is {image.size[0]}x{image.size[1]}, "
                    f"not {size[0]}x{size[1]} as the header says",
                )
    except UnidentifiedImageError:
        pass  # another decoder may know it


def _unpacked(packed: bytes, most: int) -> int:
    """Returns how many bytes RLE unpacks to, as far as ``most``."""
    at, size = 64, 0
    while at < len(packed) and size <= most:
        count = packed[at]
        size += count + 1 if count < 128 else (257 - count) % 129
        at += count + 2 if count < 128 else 1 + (count > 128)
    return size


def _displayed(pixels: np.ndarray, dataset: Dataset) -> Tensor:
    """Returns stored values [H, W] or [H, W, 3] as uint8 [3, H, W]."""
    colours = str(dataset.PhotometricInterpretation)
    if colours == "PALETTE COLOR":
        pixels = _looked_up(pixels, dataset)
    elif colours.startswith("MONOCHROME"):
        pixels = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
        low, high = float(pixels.min()), float(pixels.max())
        if not np.isfinite([low, high]).all():
            raise ValueError("there are values that are not finite")
        if dataset.get("BitsStored") != 8 or low < 0 or high > 255:
            pixels = (pixels - low) * (255 / max(high - low, 1e-6))
        if colours == "MONOCHROME1":
            pixels = 255 - pixels
    elif dataset.BitsStored > 8:
        pixels = pixels >> (dataset.BitsStored - 8)
    image = np.ascontiguousarray(np.broadcast_to(np.atleast_3d(pixels), (*pixels.shape[:2], 3)))
    return torch.from_numpy(image.round().astype(np.uint8)).permute(2, 0, 1)


def _looked_up(pixels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Returns the colours [H, W, 3] of a palette, whose entries have 8 bits or 16."""
    if "RedPaletteColorLookupTableData" not in dataset:  # in segments
        colours = apply_color_lut(pixels, dataset)[..., :3]
        return colours >> 8 if colours.dtype.itemsize == 2 else colours
    count, first, _ = map(int, dataset.RedPaletteColorLookupTableDescriptor)
    count = count or 2**16
    packed = [dataset[f"{name}PaletteColorLookupTableData"].value for name in _PRIMARIES]
    width = len(packed[0]) // count
    if width not in (1, 2) or any(len(channel) < width * count for channel in packed):
        raise ValueError(f"a palette of {count} entries has {len(packed[0])} bytes")
    order = "<" if dataset.original_encoding[1] else ">"
    palette = np.stack(
        [np.frombuffer(channel, f"{order}u{width}", count) for channel in packed], axis=-1
    )
    # What the header says of the bits is often wrong: 8 of 16 bits may be declared as either.
    if palette.max() > 255:
        palette = palette >> 8
    return palette[np.clip(pixels.astype(np.int64) - first, 0, count - 1)]
