"""What the thumbnails of a video tell: whether it moves or repeats, and what it resembles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from usucl.data.catalog.periodicity import periodicity
from usucl.data.video import Video
from usucl.data.video.base import THUMBNAIL

# Grey levels: one frame, copied and lossily encoded, changes by up to 0.6, the stillest of 309 lung
# videos by 1.1.
FROZEN = 0.7
FINGERPRINTS = 5  # frames per video
_AT_ONCE = 256  # frames
_SIDE = 8  # of the block of lowest frequencies that a fingerprint compares


@dataclass(frozen=True)
class Summary:
    """What the frames of a video look like, 32 x 32 pixels each, in grey.

    Attributes:
        digest: of the size and of all frames; videos with equal frames have equal digests.
        fingerprint: a 64-bit perceptual hash of each of a few evenly spaced frames; alike frames
            differ in few bits, whatever their size and brightness.
        change: greatest mean absolute difference between a frame and the first one, in grey
            levels; 0 for a frozen video.
        period: of a motion that repeats, such as a heart's, in frames; None if there is none.
        periodicity: how well it repeats, in [0, 1].
    """

    digest: str
    fingerprint: tuple[int, ...]
    change: float
    period: float | None = None
    periodicity: float = 0.0

    @property
    def is_static(self) -> bool:
        """Whether no frame differs from the first by more than lossy encoding makes it."""
        return self.change <= FROZEN

    def as_json(self) -> dict[str, Any]:
        """Returns the fields as JSON."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Summary:
        """Returns the summary with these fields.

        Raises:
            KeyError: one is missing.
        """
        return cls(
            digest=fields["digest"],
            fingerprint=tuple(fields["fingerprint"]),
            change=fields["change"],
            period=fields["period"],
            periodicity=fields["periodicity"],
        )


class Note(NamedTuple):
    """What is doubtful about a video that can be used.

    Attributes:
        video_id: the video.
        kind: a word for it: "static" (nothing moves), "duplicate" (another has the same frames), or
            one of ``usucl.data.inspection.KINDS``.
        text: what was found, in words.
    """

    video_id: str
    kind: str
    text: str


def find_notes(summaries: Iterable[tuple[str, int, Summary | None]]) -> tuple[Note, ...]:
    """Returns what is doubtful about videos, given their ids, numbers of frames and summaries."""
    notes: list[Note] = []
    first: dict[str, str] = {}  # video with these frames
    for name, frames, summary in summaries:
        if summary is None:
            continue
        if frames > 1 and summary.is_static:
            notes.append(Note(name, "static", f"all {frames} frames show the same"))
        if (other := first.setdefault(summary.digest, name)) != name:
            notes.append(Note(name, "duplicate", f"the same frames as {other}"))
    return tuple(notes)


def summarise(video: Video) -> Summary | None:
    """Returns the summary of a video that was opened, None if it was restored."""
    pictures = video.thumbnails
    if pictures is None:
        return None
    digest = hashlib.blake2b(f"{video.width}x{video.height}".encode(), digest_size=16)
    digest.update(pictures.tobytes())
    change = _change(pictures)
    repeats = periodicity(pictures, video.frame_rate) if change else (None, 0.0)
    return Summary(digest.hexdigest(), _fingerprints(pictures), change, *repeats)


def _change(pictures: np.ndarray) -> float:
    first = pictures[0].astype(np.int16)
    parts = (pictures[at : at + _AT_ONCE] for at in range(0, len(pictures), _AT_ONCE))
    return max(float(np.abs(part - first).mean(axis=(1, 2)).max()) for part in parts)


def _fingerprints(pictures: np.ndarray) -> tuple[int, ...]:
    """Returns the signs of the lowest frequencies of a few pictures about their median.

    The cosines are whole numbers, and all sums are exact, so every machine finds the same bits.
    """
    count = min(FINGERPRINTS, len(pictures))
    places = np.linspace(0, len(pictures) - 1, count).round().astype(int)
    frequencies = (_COSINES @ pictures[places].astype(np.float64) @ _COSINES.T).reshape(count, -1)
    ordered = np.sort(frequencies[:, 1:], axis=1)  # the first is the brightness
    middle = ordered[:, ordered.shape[1] // 2, None]
    bits = np.packbits(frequencies > middle, axis=1)
    return tuple(int.from_bytes(row.tobytes(), "big") for row in bits)


def _cosines(size: int) -> np.ndarray:
    """Returns the first rows of the discrete cosine transform, float64 [8, size]."""
    angles = np.outer(np.arange(_SIDE), np.arange(size) + 0.5) * np.pi / size
    return np.rint(np.cos(angles) * 1024)


_COSINES = _cosines(THUMBNAIL)
