"""Small DICOM files, in every syntax that pydicom, its plugins and Pillow can write."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
)

SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg": JPEGBaseline8Bit,
    "jpeg2000": JPEG2000Lossless,
}


def dataset(pixels: np.ndarray, colours: str = "MONOCHROME2", **more: Any) -> pydicom.Dataset:
    """A loop of uncompressed frames, [N, H, W] or [N, H, W, 3], with other elements."""
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = UltrasoundMultiFrameImageStorage, "1.2.3"
    data.NumberOfFrames, data.Rows, data.Columns = pixels.shape[:3]
    data.SamplesPerPixel = pixels.shape[3] if pixels.ndim == 4 else 1
    data.PlanarConfiguration = 0
    data.PhotometricInterpretation = colours
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in more.items():
        setattr(data, name, value)
    data.HighBit = more.get("HighBit", data.BitsStored - 1)
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OW"
    return data


def write(
    path: Path,
    pixels: np.ndarray,
    colours: str = "MONOCHROME2",
    *,
    syntax: UID = ExplicitVRLittleEndian,
    packed: bytes | None = None,
    **more: Any,
) -> Path:
    """Writes a loop; compresses it as ``syntax`` says, unless it is ``packed`` already."""
    data = dataset(pixels, colours, **more)
    if syntax == JPEGBaseline8Bit and packed is None:
        packed = encapsulate([jpeg(frame) for frame in pixels])
    elif syntax == JPEG2000Lossless and packed is None:
        packed = encapsulate([jpeg2000(frame) for frame in pixels])
    if packed is not None:
        data.PixelData = packed
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
    elif syntax == RLELossless:
        data.compress(syntax, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian and pixels.dtype.itemsize > 1:
        data.PixelData = pixels.byteswap().tobytes()
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path, enforce_file_format=True)
    return path


def jpeg(frame: np.ndarray) -> bytes:
    """A frame as JPEG, of best quality."""
    Image.fromarray(frame).save(file := io.BytesIO(), "jpeg", quality=95)
    return file.getvalue()


def jpeg2000(frame: np.ndarray) -> bytes:
    """A frame as a lossless codestream of JPEG 2000."""
    options = {"no_jp2": True, "num_resolutions": 1, "mct": 0}
    Image.fromarray(frame).save(file := io.BytesIO(), "jpeg2000", **options)
    return file.getvalue()
