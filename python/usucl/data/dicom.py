"""Single frames of DICOM files, as they are meant to be displayed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import torch
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from torch import Tensor

from usucl.data.video import VideoError


def dicom_frame(path: Path, index: int | None = None) -> tuple[Tensor, int]:
    """Returns frame ``index`` (the middle one for None) as uint8 [3, H, W] RGB, and its number.

    YBR is converted to RGB, palettes are looked up, grey values go through the file's modality and
    window tables and are spread over 0 to 255.

    Raises:
        VideoError: the file is not DICOM, has no pixels, or has pixels that cannot be decoded.
        IndexError: the file has no such frame.
    """
    try:
        dataset = pydicom.dcmread(path)
        frames = int(dataset.get("NumberOfFrames") or 1)
        number = frames // 2 if index is None else index
        if number >= frames:
            raise IndexError(f"{path} has {frames} frames, got @{number}")
        pixels = pixel_array(dataset, index=number)
        return _displayed(pixels, dataset), number
    except InvalidDicomError as error:
        raise VideoError(path, "not a DICOM file") from error
    except (OSError, AttributeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise VideoError(path, f"cannot be decoded ({error})") from error


def _displayed(pixels: np.ndarray, dataset: pydicom.Dataset) -> Tensor:
    """Returns stored values [H, W] or [H, W, 3] as uint8 [3, H, W]."""
    colours = str(dataset.PhotometricInterpretation)
    if colours == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    elif colours.startswith("MONOCHROME"):
        pixels = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
        low, high = float(pixels.min()), float(pixels.max())
        if dataset.BitsStored != 8 or low < 0 or high > 255:
            pixels = (pixels - low) * (255 / max(high - low, 1e-6))
        if colours == "MONOCHROME1":
            pixels = 255 - pixels
    if pixels.dtype.itemsize == 2:  # a palette has 16 bits per colour
        pixels = pixels >> 8
    image = np.ascontiguousarray(np.broadcast_to(np.atleast_3d(pixels), (*pixels.shape[:2], 3)))
    return torch.from_numpy(image.round().astype(np.uint8)).permute(2, 0, 1)
