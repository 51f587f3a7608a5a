"""The stored values of single frames of a DICOM file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import RLELossless

from usucl.data.video.base import VideoError
from usucl.data.video.dicom.codestream import advice, check_frame
from usucl.data.video.dicom.frames import Frames, is_halved
from usucl.data.video.dicom.header import Header, Source, one_sentence


def stored_values(
    path: Path, source: Source, header: Header, frames: Frames, number: int
) -> np.ndarray:
    """Returns one frame as it is stored, [H, W] or [H, W, 3]; YBR becomes RGB.

    Raises:
        VideoError: it cannot be decoded.
    """
    with one_sentence(path):
        if frames.packed is None:
            return _uncompressed(source, header, frames.whole, number)
        parts = []
        for offset, length in frames.packed[number]:
            source.seek(offset)
            parts.append(source.read(length))
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


def _uncompressed(source: Source, header: Header, count: int, number: int) -> np.ndarray:
    options = header.options | {"number_of_frames": count}
    dataset = header.dataset
    if dataset.get("PhotometricInterpretation") == "YBR_FULL_422" and not is_halved(header):
        options["photometric_interpretation"] = "YBR_FULL"
    stored, high = dataset.get("BitsStored"), dataset.get("HighBit")
    shift = int(high) + 1 - int(stored) if high and stored else 0
    if shift > 0:  # the values stand in the high bits of their words
        options["bits_stored"] = int(stored) + shift
    source.seek(header.begin)
    decoder = get_decoder(header.syntax)
    pixels, _ = decoder.as_array(source, index=number, **options)  # type: ignore[arg-type]
    return pixels >> shift if shift > 0 else pixels
