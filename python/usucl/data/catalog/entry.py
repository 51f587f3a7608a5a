"""One video of a catalogue: what is known of it, and how it is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from usucl.data.catalog.scanning.stamp import stamp_of
from usucl.data.catalog.summary import Summary
from usucl.data.video import Video, VideoError, open_video


@dataclass(frozen=True)
class VideoEntry:
    """One usable video of a catalogue.

    Attributes:
        id: name of the folder or file, or its path relative to the root if another video has it;
            in NFC, the usual spelling of accents, whatever the file system keeps.
        path: the folder or file.
        num_frames, frame_rate: as in ``Video``.
        label: the video's class, None where unknown.
        group: the patient (or source); the video's own id where unknown.
        patient_known: whether ``group`` was given.
        fold: cross-validation fold, None where not given.
        frame_labels: one class per frame, None for those without; None if no frame has one.
        source: where the video comes from, such as a hospital, None where not given.
        parts: the clips of a sweep in order, which are one video; empty for any other video. The
            path of a sweep is one that it could have.
        links: further paths that lead to the same video.
        summary: what its frames look like, None where nobody has looked.
        file_patient: the patient that the file itself names, empty if none.
        by_file: whether ``group`` is that patient, or one that it is known to be.
    """

    id: str
    path: Path
    num_frames: int
    frame_rate: float | None
    label: str | None = None
    group: str = ""
    patient_known: bool = False
    fold: int | None = None
    frame_labels: tuple[str | None, ...] | None = None
    source: str | None = None
    parts: tuple[Part, ...] = ()
    links: tuple[Path, ...] = field(default=(), repr=False, compare=False)
    summary: Summary | None = field(default=None, repr=False, compare=False)
    file_patient: str = field(default="", repr=False, compare=False)
    by_file: bool = field(default=False, repr=False, compare=False)
    _video: Video | None = field(default=None, repr=False, compare=False)
    _stamp: str | None = field(default=None, repr=False, compare=False)  # until it was compared

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.id)

    def __repr__(self) -> str:
        about = [repr(self.id), f"{self.num_frames} frames"]
        about += [f"{len(self.parts)} parts"] if self.parts else []
        about += [] if self.frame_rate is None else [f"{self.frame_rate:.4g} Hz"]
        about += [] if self.label is None else [f"label {self.label!r}"]
        about += [f"patient {self.group!r}"] if self.patient_known else []
        about += [] if self.fold is None else [f"fold {self.fold}"]
        return f"VideoEntry({', '.join(about)})"

    @property
    def paths(self) -> tuple[Path, ...]:
        """All paths that lead to the video, its own first, and those of the parts of a sweep."""
        return (self.path, *self.links, *(p for part in self.parts for p in part.video.paths))

    def part_of(self, frame: int) -> tuple[Part, int] | None:
        """Returns the part of a sweep that a frame is in, and its number there; None if none is."""
        for part in self.parts:
            if 0 <= frame < part.video.num_frames:
                return part, frame
            frame -= part.video.num_frames
        return None

    def part_numbers(self, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns which part of a sweep each frame is in, int64 [n]; 0 for any other video."""
        ends = np.cumsum([part.video.num_frames for part in self.parts], dtype=np.int64)
        return np.searchsorted(ends, frames, side="right") if self.parts else np.zeros_like(frames)

    def open(self) -> Video:
        """Returns the video, without decoding it a second time if a scan has ever done so.

        Raises:
            VideoError: it was changed after the scan.
        """
        if self._video is None and self.parts:
            from usucl.data.catalog.sweeps import SweepVideo

            opened = {part.name: part.video.open() for part in self.parts}
            object.__setattr__(self, "_video", SweepVideo(self.path, opened))
        if self._video is None:
            return open_video(self.path, damaged="keep")  # the scan has decided that it is taken
        if self._stamp is not None:
            stamp = stamp_of(self.path)
            if stamp is None or stamp.key != self._stamp:
                raise VideoError(self.path, "the file was changed after the folder was scanned")
            object.__setattr__(self, "_stamp", None)
        return self._video


class Part(NamedTuple):
    """A clip of a sweep: its name within the sweep, and its video."""

    name: str
    video: VideoEntry
