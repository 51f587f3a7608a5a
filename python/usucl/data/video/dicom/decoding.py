"""The stored values of single frames of a DICOM file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import RLELossless

from usucl.data.video.base import VideoError
from usucl.data.video.dicom.codestream import advice, check_frame
from usucl.data.video.dicom.frames import Frames, Span, is_halved
from usucl.data.video.dicom.header import Header, Source, one_sentence


class StoredValues:
    """The frames of an opened file as they are stored, by number."""

    def __init__(self, path: Path, source: Source, header: Header, frames: Frames) -> None:
        self._path = path
        self._source = source
        self._header = header
        self._frames = frames
        # pydicom takes longer to begin than to decode grey, so it goes on while numbers increase by
        # one. In colours it may take the second frame for another kind than the first.
        self._goes_on = header.dataset.get("SamplesPerPixel") == 1
        self._next = -1
        self._uncompressed: Iterator[tuple[np.ndarray, dict[str, Any]]] = iter(())

    def __getitem__(self, number: int) -> np.ndarray:
        """Returns one frame, [H, W] or [H, W, 3]; YBR becomes RGB.

        Raises:
            VideoError: it cannot be decoded.
        """
        with one_sentence(self._path):
            if self._frames.packed is not None:
                return self._decompressed(self._frames.packed[number])
            if number != self._next:
                numbers = range(number, self._frames.whole)
                self._uncompressed = _uncompressed(self._source, self._header, numbers)
            self._next = -1  # unless it is decoded
            self._source.seek(self._header.begin)
            pixels, _ = next(self._uncompressed)
            self._next = number + 1 if self._goes_on else -1
            shift = _shift(self._header)
            return pixels >> shift if shift > 0 else pixels

    def _decompressed(self, fragments: list[Span]) -> np.ndarray:
        path, header = self._path, self._header
        parts = []
        for offset, length in fragments:
            self._source.seek(offset)
            parts.append(self._source.read(length))
        packed = b"".join(parts)
        check_frame(path, header, packed)
        try:
            return _decompressed(header, packed)
        except Exception as error:
            if needed := advice(header.syntax):
                raise VideoError(path, f"its pixels are {header.syntax.name}: {needed}") from error
            raise ValueError(str(error).rpartition("plugins:")[2]) from error


def _decompressed(header: Header, packed: bytes) -> np.ndarray:
    options = {k: v for k, v in header.options.items() if k != "extended_offsets"}
    options["number_of_frames"] = 1
    decoder = get_decoder(header.syntax)
    if header.syntax == RLELossless and "pylibjpeg" in decoder.available_plugins:
        options["decoding_plugin"] = "pylibjpeg"  # many times as fast
    alone = encapsulate([packed], has_bot=False)
    return decoder.as_array(alone, index=0, **options)[0]


def _uncompressed(
    source: Source, header: Header, numbers: range
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Yields frames up to the last; the source has to be where the pixels begin."""
    options = header.options | {"number_of_frames": numbers.stop}
    dataset = header.dataset
    if dataset.get("PhotometricInterpretation") == "YBR_FULL_422" and not is_halved(header):
        options["photometric_interpretation"] = "YBR_FULL"
    if (shift := _shift(header)) > 0:
        options["bits_stored"] = int(dataset.BitsStored) + shift
    decoder = get_decoder(header.syntax)
    return decoder.iter_array(source, indices=numbers, **options)  # type: ignore[arg-type]


def _shift(header: Header) -> int:
    """Returns how far the values stand in the high bits of their words."""
    stored, high = header.dataset.get("BitsStored"), header.dataset.get("HighBit")
    return int(high) + 1 - int(stored) if high and stored else 0
