"""Cine loops of DICOM files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.multival import MultiValue

from usucl.data.video.base import Damaged, Video, VideoError
from usucl.data.video.dicom.codestream import check_syntax
from usucl.data.video.dicom.decoding import StoredValues
from usucl.data.video.dicom.display import (
    drop_impossible_tables,
    grey_values,
    inverted,
    is_grey,
    shown_colours,
    shown_grey,
    stated_range,
)
from usucl.data.video.dicom.frames import Frames, find_frames
from usucl.data.video.dicom.header import Header, Source, one_sentence, opened
from usucl.data.video.dicom.timing import frame_rate, frame_times
from usucl.data.video.images.grey import GreyRange, Range
from usucl.data.video.images.image import thumbnail


class DicomVideo(Video):
    """The frames of a DICOM file, as they are meant to be displayed; a still has one.

    YBR is converted to RGB and palettes are looked up. Grey values go through the file's modality
    and window tables and become 0 to 255 by one scaling for all frames: what the window makes black
    and white, values of 8 bits as they are, and otherwise the least and greatest value of the loop.
    """

    _FACTS = (*Video._FACTS, "_range", "_broken")

    def __init__(self, path: Path, damaged: Damaged = "skip") -> None:
        self.path = path
        self._range: Range | None = None
        self._broken: tuple[int, ...] = ()  # frames of the file that cannot be decoded
        with opened(path) as (source, header):
            with one_sentence(path):
                check_syntax(path, header.syntax)
                frames = find_frames(path, source, header)
                drop_impossible_tables(header.dataset)
                times = frame_times(header.dataset, frames.whole)
                self.frame_rate = frame_rate(header.dataset, times)
                self.patient = _patient(header.dataset)
            trouble = [frames.trouble] if frames.trouble else []
            if trouble and damaged == "skip":
                raise VideoError(path, f"damaged: {trouble[0]}")
            trouble += self._survey(source, header, frames, damaged)
        self.damage = f"damaged: {'; '.join(trouble)}" if trouble else None
        kept = np.setdiff1d(np.arange(frames.whole), self._broken)
        self.num_frames = len(kept)
        if not self.num_frames:
            raise VideoError(path, self.damage or "no frame could be decoded")
        self.times = None if times is None else times[kept] - times[kept[0]]
        self.height, self.width = int(header.dataset.Rows), int(header.dataset.Columns)

    def _survey(
        self, source: Source, header: Header, frames: Frames, damaged: Damaged
    ) -> list[str]:
        """Decodes every frame, for thumbnails and the range of grey values; returns the damage."""
        dataset = header.dataset
        grey = is_grey(dataset)
        with one_sentence(self.path):
            self._range = stated_range(dataset) if grey else None
        greys = GreyRange()
        small: list[np.ndarray] = []
        broken: list[int] = []
        first = ""
        values = StoredValues(self.path, source, header, frames)
        for number in range(frames.whole):
            try:
                stored = values[number]
                with one_sentence(self.path):
                    if grey and self._range is None:
                        greys.add(grey_values(stored, dataset))
                    else:
                        small.append(thumbnail(Image.fromarray(self._shown(stored, dataset))))
            except VideoError as error:
                if damaged == "skip":
                    raise
                first = first or f"frame {number} {error.reason.removeprefix('damaged: ')}"
                broken.append(number)
        if greys.found:
            self._range = greys.found
            small = [inverted(picture, dataset) for picture in greys.thumbnails()]
        if small:
            self.thumbnails = np.stack(small)
        self._broken = tuple(broken)
        return [f"{len(broken)} of {frames.whole} frames are broken ({first})"] if broken else []

    def _decode(self, indices: list[int]) -> Iterator[np.ndarray]:
        with opened(self.path) as (source, header):
            with one_sentence(self.path):
                frames = find_frames(self.path, source, header)
                drop_impossible_tables(header.dataset)
            kept = np.setdiff1d(np.arange(frames.whole), self._broken)
            values = StoredValues(self.path, source, header, frames)
            for index in indices:
                if index >= len(kept):
                    raise VideoError(
                        self.path, f"frame {index} is gone: the file was changed after opening"
                    )
                stored = values[int(kept[index])]
                with one_sentence(self.path):
                    picture = self._displayed(stored, header.dataset)
                if picture.shape[:2] != (self.height, self.width):
                    raise VideoError(self.path, "its frames have another size than when opened")
                yield picture

    def _displayed(self, stored: np.ndarray, dataset: Dataset) -> np.ndarray:
        """Returns uint8 [H, W, 3], writable."""
        shown = self._shown(stored, dataset)
        return np.array(shown) if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=2)

    def _shown(self, stored: np.ndarray, dataset: Dataset) -> np.ndarray:
        """Returns uint8 [H, W, 3], or [H, W] if it is grey."""
        if self._range is None:
            return shown_colours(stored, dataset)
        if stored.ndim != 2:
            raise ValueError(f"grey frames have two dimensions, these have {stored.ndim}")
        return shown_grey(grey_values(stored, dataset), dataset, self._range)


def _patient(dataset: Dataset) -> str | None:
    """Returns the patient's number, which may hold the character that parts several values."""
    number = dataset.get("PatientID") or ""
    text = "\\".join(map(str, number)) if isinstance(number, MultiValue) else str(number)
    return text.strip(" \0") or None
