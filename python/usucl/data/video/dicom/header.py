"""The header of a DICOM file, read no further than the pixels and at bounded cost."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pydicom import Dataset
from pydicom.datadict import DicomDictionary
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from usucl.data.video.base import VideoError
from usucl.data.video.dicom.signature import first_element
from usucl.data.video.limits import limit

_KEYWORDS = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
_WANTED: list[Any] = [
    0x00080005,  # SpecificCharacterSet, of the patient's name
    0x00080016,  # SOPClassUID
    0x00082144,  # RecommendedDisplayFrameRate
    0x00100020,  # PatientID
    0x00180040,  # CineRate
    0x00181063,  # FrameTime
    0x00181065,  # FrameTimeVector
    *(tag for tag in DicomDictionary if tag >> 16 == 0x0028),  # how the pixels are stored and shown
    0x7FE00001,  # ExtendedOffsetTable
    0x7FE00002,  # ExtendedOffsetTableLengths
]
# They log what they raise, and of every frame what they warn of.
_LOGGERS = [logging.getLogger(name) for name in ("pydicom", "pylibjpeg", "libjpeg", "openjpeg")]
_MOST_READS = 400_000  # of a header: one of endless small elements takes minutes


class _Silence:
    """Ignores warnings, and what libraries log, while any thread is in it.

    Threads that each save the filters of warnings, which are those of the process, and put them
    back later, may put back those of another thread, and so ignore all warnings for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()
        self._disabled: list[bool] = []

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
                self._disabled = [logger.disabled for logger in _LOGGERS]
                for logger in _LOGGERS:
                    logger.disabled = True

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for logger, disabled in zip(_LOGGERS, self._disabled, strict=True):
                    logger.disabled = disabled
                self._filters.__exit__(None, None, None)


_silence = _Silence()


@contextlib.contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Turns whatever damage makes pydicom raise, of any type, into a VideoError, without noise."""
    try:
        with _silence:
            yield
    except VideoError:
        raise
    except OSError as error:
        raise VideoError(path, f"cannot be read ({error.strerror or error})") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise VideoError(path, f"cannot be decoded ({reason})") from error


class Source:
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
        """Number of bytes up to the end of the file."""
        return max(0, self.end - self.tell())

    def read(self, size: int | None = -1) -> bytes:
        """Returns as many bytes as are there, at most ``size``."""
        self.reads_left -= 1
        if self.reads_left < 0:
            raise ValueError("the header has too many elements")
        return self._file.read(self.left if size is None or size < 0 else min(size, self.left))


class Header(NamedTuple):
    """What stands before the pixels of a DICOM file.

    Attributes:
        dataset: the elements that say how the pixels are stored, timed and shown.
        syntax: how they are packed; a deflated file is read as if it were not.
        options: what pydicom's decoders need to know.
        begin: where in the source the pixels begin.
        length: of the pixels as the file states it, in bytes.
        frames: how many there are as the file states it, None if it states no number.
    """

    dataset: Dataset
    syntax: UID
    options: dict[str, Any]
    begin: int
    length: int
    frames: int | None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Source, Header]]:
    """Yields a file and its header.

    Raises:
        VideoError: the file is not DICOM, has no pixels or is cut before them.
    """
    with contextlib.ExitStack() as stack:
        with one_sentence(path):
            read = _read(path, Source(stack.enter_context(path.open("rb"))))
        yield read


def _read(path: Path, source: Source) -> tuple[Source, Header]:
    head = source.read(4096)
    if not head:
        raise VideoError(path, "the file is empty")
    start = first_element(head)
    if start is None:
        raise VideoError(path, "not a DICOM file")
    source.seek(start)
    if head[start] == 0 and head[start + 1] in (2, 8):  # its first group, in big-endian order
        meta, syntax = FileMetaDataset(), ExplicitVRBigEndian
    else:
        meta = FileMetaDataset(_elements(source, ExplicitVRLittleEndian, groups={0x0002}))
        syntax = meta.get("TransferSyntaxUID")
    if syntax is not None and not (syntax.is_valid and syntax.is_transfer_syntax):
        raise VideoError(path, f"its pixels are packed by {syntax.name}, which is not read")
    if syntax == DeflatedExplicitVRLittleEndian:
        source, syntax = Source(_inflated(path, source)), ExplicitVRLittleEndian
    dataset = _elements(source, syntax or ImplicitVRLittleEndian)
    implicit, little = dataset.original_encoding
    if syntax is None:
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        syntax = syntax if little else ExplicitVRBigEndian
    dataset.file_meta = meta
    meta.TransferSyntaxUID = syntax
    order = "<" if little else ">"
    head = source.read(8 if implicit else 12)
    if len(head) < (8 if implicit else 12):
        raise VideoError(path, _no_pixels(dataset))
    if not (dataset.get("Rows") and dataset.get("Columns") and dataset.get("BitsAllocated")):
        raise VideoError(path, "damaged: its header lacks the size of the pixels")
    group, element = struct.unpack_from(f"{order}HH", head)
    (length,) = struct.unpack(f"{order}L", head[-4:])
    stated = _stated_frames(dataset)
    dataset.pop("NumberOfFrames", None)
    options = as_pixel_options(dataset, pixel_keyword=_KEYWORDS[group << 16 | element])
    options["pixel_vr"] = "OW" if implicit else head[4:6].decode()
    source.reads_left = math.inf  # of the pixels only what is wanted is read
    return source, Header(dataset, syntax, options, source.tell(), length, stated)


def _stated_frames(dataset: Dataset) -> int | None:
    """Returns the number of frames that a file states, 1 where it leaves that open."""
    try:
        return int(dataset.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        return None


def _elements(source: Source, syntax: UID, groups: set[int] | None = None) -> Dataset:
    """Reads the elements before the pixels, or those of the first ``groups``."""

    def stop(tag: Any, _: str | None, __: int) -> bool:
        return tag in _KEYWORDS if groups is None else tag.group not in groups

    return read_dataset(
        source,  # type: ignore[arg-type]
        syntax.is_implicit_VR,
        syntax.is_little_endian,
        stop_when=stop,
        specific_tags=_WANTED if groups is None else None,
    )


def _no_pixels(dataset: Dataset) -> str:
    """Returns why a file has no pixels, in words."""
    kind = UID(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    if kind == MediaStorageDirectoryStorage:
        return "a DICOM directory, which lists files and holds no picture"
    if "PixelDataProviderURL" in dataset:
        return "its pixels are on a server, not in the file"
    if "Rows" in dataset:
        return "cut short: the file ends before its pixels"
    return f"holds no picture, or is cut before it (DICOM {kind.name or 'of an unknown kind'})"


def _inflated(path: Path, source: Source) -> io.BytesIO:
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
