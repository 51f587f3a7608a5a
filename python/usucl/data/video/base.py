"""What every video offers: random access to its frames, and the error if it cannot be read."""

from __future__ import annotations

import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

Damaged = Literal["skip", "keep"]
_DIGITS = re.compile(r"([0-9]+)")
THUMBNAIL = 32  # pixels, each side
AVideo = TypeVar("AVideo", bound="Video")


class VideoError(ValueError):
    """A video cannot be read; holds its ``path`` and the ``reason`` in words."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Video(ABC):
    """Frames of one video by index. It holds no open file, so it can be kept, copied and pickled.

    Attributes:
        path: the folder or file.
        num_frames: number of frames decoded when it was opened.
        frame_rate: mean frames per second (Hz), None where unknown.
        times: float64 [num_frames], seconds after the first frame, None where unknown.
        height, width: of every frame, in pixels, as it is displayed: upright, its pixels square.
        damage: what is missing or broken in words, None for a whole video.
        patient: the patient that the file itself names, None where it names none.
        thumbnails: uint8 [num_frames, 32, 32], every frame in grey and squeezed to a square, as
            opening the video saw it; None if it was ``restored``.
    """

    # Names of the attributes that opening finds out; each is JSON, a tuple of it, or the times.
    _FACTS: ClassVar[tuple[str, ...]] = (
        "num_frames",
        "frame_rate",
        "times",
        "height",
        "width",
        "damage",
        "patient",
    )

    path: Path
    num_frames: int
    frame_rate: float | None
    times: np.ndarray | None
    height: int
    width: int
    damage: str | None = None
    patient: str | None = None
    thumbnails: np.ndarray | None = None

    def __len__(self) -> int:
        return self.num_frames

    def __repr__(self) -> str:
        rate = "" if self.frame_rate is None else f", {self.frame_rate:.4g} Hz"
        size = f"{self.width}x{self.height}"
        return f"{type(self).__name__}({str(self.path)!r}, {self.num_frames} frames, {size}{rate})"

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Tensor: ...
    def __getitem__(self, index: int | slice) -> Tensor:
        """Returns one frame, uint8 [3, H, W], or those of a slice, uint8 [n, 3, H, W].

        Raises:
            IndexError: there is no frame at ``index``, which may count from the end.
            TypeError: ``index`` is neither a whole number nor a slice.
            VideoError: see ``frames``.
        """
        if isinstance(index, slice):
            return self.frames(range(*index.indices(len(self))))
        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(
                "index must be a whole number or a slice, such as video[0] or video[:10], got "
                f"{index!r}; video.frames([3, 1]) returns several frames"
            ) from None
        if not -len(self) <= number < len(self):
            raise IndexError(
                f"index must be in [-{len(self)}, {len(self)}), got {number} ({self.path})"
            )
        return self.frames([number % len(self)])[0]

    def facts(self) -> dict[str, Any]:
        """Returns what opening found out, as JSON; :meth:`restored` makes the video of it."""
        found = {name: getattr(self, name) for name in self._FACTS}
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in found.items()}

    @classmethod
    def restored(cls: type[AVideo], path: Path, facts: Mapping[str, Any]) -> AVideo:
        """Returns the video at ``path`` without reading it, from the facts of an earlier opening.

        Raises:
            KeyError: a fact is missing.
        """
        video = cls.__new__(cls)
        video.path = path
        for name in cls._FACTS:
            fact = facts[name]
            setattr(video, name, tuple(fact) if isinstance(fact, list) else fact)
        if video.times is not None:
            video.times = np.array(video.times, dtype=np.float64)
        return video

    def frames(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Returns frames at ``indices`` (any order, repeats allowed): uint8 [n, 3, H, W], RGB.

        Raises:
            IndexError: an index is outside [0, num_frames).
            TypeError: ``indices`` are no whole numbers.
            VideoError: the video has changed since it was opened and can no longer be read.
        """
        wanted = whole_numbers(indices)
        if not len(wanted):
            return torch.empty(0, 3, self.height, self.width, dtype=torch.uint8)
        unique, position = np.unique(wanted, return_inverse=True)
        return torch.stack(list(self.iter_frames(unique)))[torch.from_numpy(position)]

    def iter_frames(self, indices: Sequence[int] | np.ndarray) -> Iterator[Tensor]:
        """Yields uint8 [3, H, W] for strictly increasing ``indices``, with one frame in memory.

        Raises:
            IndexError, TypeError, VideoError: see ``frames``.
            ValueError: ``indices`` do not increase.
        """
        wanted = whole_numbers(indices).tolist()
        if any(b <= a for a, b in pairwise(wanted)):
            raise ValueError(f"indices must be strictly increasing, got {wanted}")
        if wanted and not 0 <= wanted[0] <= wanted[-1] < self.num_frames:
            raise IndexError(
                f"indices must be in [0, {self.num_frames}), "
                f"got {wanted[0]} to {wanted[-1]} ({self.path})"
            )
        for array in self._decode(wanted):
            yield torch.from_numpy(array).permute(2, 0, 1)

    @abstractmethod
    def _decode(self, indices: list[int]) -> Iterator[np.ndarray]:
        """Yields uint8 [H, W, 3], writable, at the increasing ``indices``."""


def whole_numbers(indices: Sequence[int] | np.ndarray | Tensor) -> np.ndarray:
    """Returns int64 [n].

    Raises:
        TypeError: they are no whole numbers: a mask would be taken for the frames 0 and 1.
    """
    array = np.asarray(indices).reshape(-1)
    if len(array) and array.dtype.kind not in "iu":
        raise TypeError(f"indices must be whole numbers, got {indices!r}")
    return array.astype(np.int64)


def natural_key(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Returns a sort key that reads digits as numbers; the text decides ties (01 before 1)."""
    parts = enumerate(_DIGITS.split(text))  # every second one is a number
    return [(0, int(p), "") if i & 1 else (1, 0, p.lower()) for i, p in parts if p], text


def seconds(stamps: list[float | None]) -> np.ndarray | None:
    """Returns float64 [n] since the first frame; None if stamps are missing or do not increase."""
    if any(stamp is None for stamp in stamps):
        return None
    times = np.array(stamps, dtype=np.float64)
    return times - times[0] if np.all(np.diff(times) > 0) else None
