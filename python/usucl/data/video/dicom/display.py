"""From the stored values of a DICOM file to colours on a screen."""

from __future__ import annotations

import math

import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

from usucl.data.video.images.grey import Range, spread

_PRIMARIES = ("Red", "Green", "Blue")
_TABLES = ("ModalityLUTSequence", "RescaleSlope", "VOILUTSequence", "WindowWidth")
_BEYOND = 1e12  # more than any value, for the ends of a window


def is_grey(dataset: Dataset) -> bool:
    """Returns whether the frames are grey, so that they are spread over 0 to 255."""
    return str(dataset.get("PhotometricInterpretation", "")).startswith("MONOCHROME")


def drop_impossible_tables(dataset: Dataset) -> None:
    """Removes empty tables, and windows that no value fits in: devices write them for none."""
    for name in ("ModalityLUTSequence", "VOILUTSequence"):
        tables = dataset.get(name)
        if not tables or not (tables[0].get("LUTDescriptor") and tables[0].get("LUTData")):
            dataset.pop(name, None)
    if dataset.get("RescaleSlope") is None or dataset.get("RescaleIntercept") is None:
        dataset.pop("RescaleSlope", None)
    try:
        width, centre = (
            float(np.atleast_1d(dataset.get(name))[0]) for name in ("WindowWidth", "WindowCenter")
        )
        exact = str(dataset.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR_EXACT"
        usable = math.isfinite(centre) and (width > 0 if exact else width >= 1)
    except (TypeError, ValueError, IndexError):
        usable = False
    if not usable:
        for name in ("WindowWidth", "WindowCenter"):
            dataset.pop(name, None)


def stated_range(dataset: Dataset) -> Range | None:
    """Returns what is black and white by the header; None if only the values themselves tell."""
    if dataset.get("VOILUTSequence"):
        return None
    if "WindowWidth" in dataset:
        low, high = apply_voi_lut(np.array([-_BEYOND, _BEYOND]), dataset).tolist()
        return (low, high) if low < high else None
    mapped = dataset.get("ModalityLUTSequence") or "RescaleSlope" in dataset
    plain = dataset.get("BitsStored") == 8 and not dataset.get("PixelRepresentation")
    return (0.0, 255.0) if plain and not mapped else None


def grey_values(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Returns grey values [H, W]: the stored ones [H, W] after the modality and window tables."""
    if not any(name in dataset for name in _TABLES):  # which pydicom finds out more slowly
        return stored
    return apply_voi_lut(apply_modality_lut(stored, dataset), dataset)


def shown_grey(values: np.ndarray, dataset: Dataset, black_white: Range) -> np.ndarray:
    """Returns grey values as uint8 of the same shape."""
    plain = values.dtype == np.uint8 and black_white == (0.0, 255.0)
    shown = values if plain else spread(values, black_white)
    return inverted(shown, dataset)


def inverted(shown: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Returns the complement where a file has black for its greatest value."""
    return 255 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


def shown_colours(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Returns a frame in colours as uint8 [H, W, 3]."""
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = _looked_up(stored, dataset)
    elif int(dataset.BitsStored) > 8:
        stored = stored >> (int(dataset.BitsStored) - 8)
    if stored.ndim != 3 or stored.shape[2] != 3:
        raise ValueError(f"its colours are {dataset.PhotometricInterpretation}, which is not read")
    return stored.astype(np.uint8)


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
