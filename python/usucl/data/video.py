"""Videos as random-access sequences of frames: a folder of images or a video file.

Opening a video decodes all of it once. Containers may misstate their number of frames and images
may be cut short, so only decoding tells how many frames there are and that each is readable.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

Damaged = Literal["skip", "keep"]
"""What becomes of a video of which something is missing or broken."""
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
CONTAINER_SUFFIXES = frozenset(
    {".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}
)


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
        height, width: of every frame, in pixels.
        damage: what is missing or broken, None where nothing is.
    """

    path: Path
    num_frames: int
    frame_rate: float | None
    times: np.ndarray | None
    height: int
    width: int
    damage: str | None = None

    def __len__(self) -> int:
        return self.num_frames

    def __repr__(self) -> str:
        rate = "" if self.frame_rate is None else f", {self.frame_rate:.4g} Hz"
        size = f"{self.width}x{self.height}"
        return f"{type(self).__name__}({str(self.path)!r}, {self.num_frames} frames, {size}{rate})"

    def frames(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Returns frames at ``indices`` (any order, repeats allowed): uint8 [n, 3, H, W], RGB.

        Raises:
            IndexError: an index is outside [0, num_frames).
            VideoError: the video has changed since it was opened and can no longer be read.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if not len(wanted):
            return torch.empty(0, 3, self.height, self.width, dtype=torch.uint8)
        unique, position = np.unique(wanted, return_inverse=True)
        return torch.stack(list(self.iter_frames(unique)))[torch.from_numpy(position)]

    def iter_frames(self, indices: Sequence[int] | np.ndarray) -> Iterator[Tensor]:
        """Yields uint8 [3, H, W] for strictly increasing ``indices``, with one frame in memory.

        Raises:
            IndexError, VideoError: see ``frames``.
            ValueError: ``indices`` do not increase.
        """
        wanted = [int(i) for i in indices]
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


class FrameFolder(Video):
    """A folder of still images in natural order (frame2 before frame10), hidden files ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = frame_files(path)
        if not self.files:
            raise VideoError(path, "no image in the folder")
        sizes = [self._check(file) for file in self.files]
        for file, size in zip(self.files, sizes, strict=True):
            if size != sizes[0]:
                raise VideoError(
                    path,
                    f"frames differ in size: {self.files[0].name} is {sizes[0][0]}x{sizes[0][1]}, "
                    f"{file.name} is {size[0]}x{size[1]}",
                )
        self.num_frames = len(self.files)
        self.width, self.height = sizes[0]
        self.frame_rate = None
        self.times = None

    def _check(self, file: Path) -> tuple[int, int]:
        try:
            with Image.open(file) as image:
                size = image.size
                if image.mode.startswith(("I", "F")):
                    raise VideoError(self.path, f"{file.name}: not an 8-bit image ({image.mode})")
                # JPEG decodes at an eighth of its size, which is enough to notice missing data.
                image.draft(None, (1, 1))
                image.load()
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise VideoError(self.path, f"{file.name}: {_image_trouble(file, error)}") from error
        return size

    def _decode(self, indices: list[int]) -> Iterator[np.ndarray]:
        for index in indices:
            file = self.files[index]
            try:
                with Image.open(file) as image:
                    yield np.array(image.convert("RGB"))
            except OSError as error:
                raise VideoError(
                    self.path, f"{file.name}: {_image_trouble(file, error)}"
                ) from error


class VideoFile(Video):
    """A video file, decoded by FFmpeg through PyAV."""

    def __init__(self, path: Path) -> None:
        self.path = path
        stamps: list[float | None] = []
        size: tuple[int, int] | None = None
        for frame in self._stream():
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise VideoError(
                    path,
                    f"frames differ in size: frame {len(stamps)} is {frame.width}x{frame.height}, "
                    f"the frames before it are {size[0]}x{size[1]}",
                )
            stamps.append(frame.time)
        if size is None:
            raise VideoError(path, "no frame could be decoded")
        self.width, self.height = size
        self.num_frames = len(stamps)
        self.times = _seconds(stamps)
        self.frame_rate = self._rate()

    def _open(self) -> av.container.InputContainer:
        # FFmpeg takes the text before a colon for a protocol, unless a slash comes first.
        return av.open(str(self.path.absolute()))

    def _rate(self) -> float | None:
        if self.times is not None and self.num_frames > 1:
            return float((self.num_frames - 1) / self.times[-1])
        with self._open() as container:
            rate = container.streams.video[0].average_rate
        return float(rate) if rate else None

    def _stream(self) -> Iterator[Any]:
        try:
            if self.path.stat().st_size == 0:
                raise VideoError(self.path, "the file is empty")
            with self._open() as container:
                if not container.streams.video:
                    raise VideoError(self.path, "the file holds no video stream")
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                yield from container.decode(stream)
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(self.path, f"cannot be decoded ({error.strerror})") from error

    def _decode(self, indices: list[int]) -> Iterator[np.ndarray]:
        # Decoding starts at the first frame: seeking by time is faster, but goes wrong in damaged
        # and variable-rate files.
        wanted = iter(indices)
        target = next(wanted, None)
        if target is None:
            return
        for index, frame in enumerate(self._stream()):
            if index == target:
                yield frame.to_ndarray(format="rgb24")
                target = next(wanted, None)
                if target is None:
                    return
        raise VideoError(self.path, f"frame {target} is gone: the file was changed after opening")


_FILE_READERS: dict[str, Callable[[Path], Video]] = dict.fromkeys(CONTAINER_SUFFIXES, VideoFile)


def is_video_file(path: Path) -> bool:
    """Returns whether ``open_video`` can read files with the suffix of ``path``."""
    return path.suffix.lower() in _FILE_READERS


def open_video(path: str | Path, *, damaged: Damaged = "skip") -> Video:
    """Opens a folder of frames (jpg, png, bmp, tif, webp) or a file (mp4, avi, mov, mpeg, gif).

    Raises:
        VideoError: the video is missing, empty, broken, or of an unknown kind.
    """
    path = Path(path)
    if path.is_dir():
        return FrameFolder(path)
    if not path.is_file():
        raise VideoError(path, "no such file or folder")
    if not is_video_file(path):
        raise VideoError(path, f"not a known video format ({path.suffix or 'no suffix'})")
    return _FILE_READERS[path.suffix.lower()](path)


def frame_files(folder: Path) -> list[Path]:
    """Returns the image files directly in ``folder``, in natural order, without hidden ones."""
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(file) and file.is_file()
    ]
    return sorted(files, key=lambda file: natural_key(file.name))


def is_hidden(path: Path) -> bool:
    """Returns whether the name starts with a dot."""
    return path.name.startswith(".")


def natural_key(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Returns a sort key that reads digits as numbers; the text decides ties (01 before 1)."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return [(0, int(p), "") if p[0].isdigit() else (1, 0, p.lower()) for p in parts], text


def _seconds(stamps: list[float | None]) -> np.ndarray | None:
    """Returns float64 [n] since the first frame; None if stamps are missing or do not increase."""
    if any(stamp is None for stamp in stamps):
        return None
    times = np.array(stamps, dtype=np.float64)
    return times - times[0] if np.all(np.diff(times) > 0) else None


def _image_trouble(file: Path, error: Exception) -> str:
    if file.is_file() and file.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return f"cannot be decoded ({error})"
