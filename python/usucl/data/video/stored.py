"""Videos of plain pixels in one file, which are mapped into memory instead of being decoded.

The file is in the format of safetensors, with the tensors ``times`` (float64 [n], absent where
unknown), ``frames`` (uint8 [n, 1 or 3, H, W]) and ``thumbnails`` (uint8 [n, 32, 32]). Its metadata
hold the other facts of the video and a seal, see ``usucl._files``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from usucl._files import SEAL, UNSEALED, DamagedFileError, check_seal, replacing
from usucl.data.video.base import THUMBNAIL, Damaged, Video, VideoError, whole_numbers
from usucl.data.video.limits import check_cost

SUFFIX = ".safetensors"
FORMAT = "usucl video 1"
_LARGEST_HEADER = 2**20  # bytes
_DTYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype(np.uint8), "F64": np.dtype("<f8")}
_TOLD = ("frame_rate", "damage", "patient")


def is_stored(path: Path) -> bool:
    """Returns whether a file is such a video, by its name and header."""
    if path.suffix.lower() != SUFFIX:
        return False
    try:
        return bool(_header(path))
    except (OSError, VideoError):
        return False


@dataclass(frozen=True)
class Pixels:
    """Where the frames of a stored video are: it is a path and numbers, however it is copied.

    Attributes:
        path: the file.
        start: byte at which the frames begin.
        shape: n, channels (1 or 3), height, width.
        size: length of the whole file in bytes.
    """

    path: Path
    start: int
    shape: tuple[int, int, int, int]
    size: int

    @property
    def nbytes(self) -> int:
        """Size of all frames."""
        return math.prod(self.shape)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns frames at ``indices``, in any order: uint8 [n, 1 or 3, H, W], a copy.

        The map is shared by all processes that read the file, and costs memory only while there is
        some to spare.

        Raises:
            OSError: the file is gone or has another length.
        """
        found = os.stat(self.path)
        if found.st_size != self.size:  # reading a map beyond the end would kill the process
            raise OSError(f"{self.path} was changed after it was opened")
        version = (found.st_dev, found.st_ino, found.st_mtime_ns)
        return _mapped(self.path, self.start, self.shape, version)[np.asarray(indices, np.int64)]


@functools.lru_cache(maxsize=1024)
def _mapped(path: Path, start: int, shape: tuple[int, ...], version: tuple[int, ...]) -> np.ndarray:
    return np.memmap(path, np.uint8, "r", start, shape)


class PixelFile(Video):
    """A video of plain pixels in one file, as ``usucl data convert --to store`` writes it."""

    _FACTS = (*Video._FACTS, "_channels", "_start", "_size")

    def __init__(self, path: Path, damaged: Damaged = "skip") -> None:
        self.path = path
        try:
            check_seal(path)
            header = _header(path)
        except (DamagedFileError, OSError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise VideoError(path, f"damaged: {reason}") from error
        if not header:
            raise VideoError(path, "a safetensors file that holds no video")
        frames = header["frames"]
        self.num_frames, self._channels, self.height, self.width = frames.shape
        self._start, self._size = frames.start, frames.size
        self.frame_rate, self.damage, self.patient = (header["facts"].get(name) for name in _TOLD)
        self.times = _array(path, header["times"]) if "times" in header else None
        self.thumbnails = _array(path, header["thumbnails"])

    @property
    def pixels(self) -> Pixels:
        """Where the frames are."""
        shape = (self.num_frames, self._channels, self.height, self.width)
        return Pixels(self.path, self._start, shape, self._size)

    def frames(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Returns frames, all at once; see :meth:`Video.frames`."""
        wanted = whole_numbers(indices)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < self.num_frames:
            return super().frames(wanted)  # which tells what is wrong
        return torch.from_numpy(self._read(wanted)).expand(-1, 3, -1, -1).contiguous()

    def _decode(self, indices: list[int]) -> Iterator[np.ndarray]:
        for index in indices:
            frame = self._read([index])[0]
            shown = np.broadcast_to(frame.transpose(1, 2, 0), (self.height, self.width, 3))
            yield np.ascontiguousarray(shown)

    def _read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        try:
            return self.pixels.read(indices)
        except OSError as error:
            raise VideoError(self.path, error.strerror or str(error)) from error


@dataclass(frozen=True)
class _Tensor:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    size: int  # of the file


def _header(path: Path) -> dict[str, Any]:
    """Returns the tensors of a stored video by name, and its ``facts``; empty for another file.

    Raises:
        OSError: the file cannot be read.
        VideoError: it is a stored video, but too large, or not as its header says.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(_LARGEST_HEADER, size - 8):
            return {}
        text = file.read(length)
    try:
        table = json.loads(text)
        metadata = table.pop("__metadata__")
        if metadata["format"] != FORMAT:
            return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    try:
        found: dict[str, Any] = {
            name: _Tensor(
                _DTYPES[about["dtype"]],
                tuple(map(int, about["shape"])),
                8 + length + int(about["data_offsets"][0]),
                size,
            )
            for name, about in table.items()
        }
        n, channels, height, width = found["frames"].shape
        check_cost(path, width, height, n)
        shapes = {
            "frames": (n, channels, height, width),
            "thumbnails": (n, THUMBNAIL, THUMBNAIL),
            "times": (n,),
        }
        at = 8 + length
        for name in sorted(found, key=lambda name: found[name].start):
            tensor = found[name]
            if tensor.shape != shapes[name] or tensor.start != at:
                raise ValueError(f"{name} is not where it belongs")
            at += tensor.dtype.itemsize * math.prod(tensor.shape)
        if at != size or n < 1 or channels not in (1, 3) or "thumbnails" not in found:
            raise ValueError("its parts do not fill it")
        found["facts"] = dict(json.loads(metadata["facts"]))
        found["notes"] = dict(json.loads(metadata["notes"]))
    except VideoError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise VideoError(path, f"damaged: its header is wrong ({error})") from error
    return found


def _array(path: Path, tensor: _Tensor) -> np.ndarray:
    with path.open("rb") as file:
        file.seek(tensor.start)
        content = file.read(tensor.dtype.itemsize * math.prod(tensor.shape))
    return np.frombuffer(content, tensor.dtype).reshape(tensor.shape).copy()


def stored_pixels(path: Path, *, check: bool = True) -> tuple[Pixels, dict[str, Any]]:
    """Returns where the frames of a stored video are, and the notes it was written with.

    Args:
        path: the file.
        check: read all of it, to compare its checksum.

    Raises:
        DamagedFileError: it is not whole.
        OSError: it cannot be read.
        VideoError: it is no stored video.
    """
    if (check and not check_seal(path)) or not (header := _header(path)):
        raise VideoError(path, "no stored video")
    frames = header["frames"]
    return Pixels(path, frames.start, frames.shape, frames.size), header["notes"]


def write_stored(
    path: Path,
    frames: Callable[[], Iterable[Tensor]],
    video: Video,
    *,
    notes: Mapping[str, Any] | None = None,
    durable: bool = True,
) -> None:
    """Writes a video in one piece, sealed, with one frame in memory.

    Args:
        path: the file; an earlier one stays until the new one is whole.
        frames: returns an iterator over all frames, uint8 [3, H, W] of one size. It is called again
            if the first frames are grey and a later one is not.
        video: has the other facts.
        notes: JSON that is kept with it.
        durable: wait until the file is on disk.

    Raises:
        OSError: the file cannot be written; names it.
        VideoError: the frames cannot be read, or are not as many as the video says.
    """
    with replacing(path, durable=durable) as temporary:
        if not _write(temporary, frames(), video, notes or {}, grey=True):
            _write(temporary, frames(), video, notes or {}, grey=False)


def _write(
    path: Path, frames: Iterable[Tensor], video: Video, notes: Mapping[str, Any], *, grey: bool
) -> bool:
    """Returns whether the video was written; it is not if it should be grey, and is not."""
    thumbnails: list[np.ndarray] = []
    with path.open("wb") as file:
        digest = hashlib.sha256()

        def put(content: bytes | memoryview) -> None:
            digest.update(content)
            file.write(content)

        seal_at = 0
        for frame in frames:
            alike = bool((frame[0] == frame[1]).all() and (frame[0] == frame[2]).all())
            if grey and not alike:
                if thumbnails:
                    return False
                grey = False
            if not thumbnails:
                header = _made_header(video, notes, (1 if grey else 3, *frame.shape[1:]))
                seal_at = header.rindex(SEAL.encode()) + len(SEAL) - len(UNSEALED)
                put(header)
                if video.times is not None:
                    put(np.ascontiguousarray(video.times, "<f8").tobytes())
            array = (frame[:1] if grey else frame).contiguous().numpy()
            put(array.data)
            thumbnails.append(_thumbnail(frame))
        if len(thumbnails) != video.num_frames:
            raise VideoError(
                video.path,
                f"holds {len(thumbnails)} frames, not {video.num_frames}: it was changed",
            )
        put(np.stack(thumbnails).tobytes())
        file.seek(seal_at)
        file.write(digest.hexdigest().encode())
    return True


def _made_header(video: Video, notes: Mapping[str, Any], shape: tuple[int, ...]) -> bytes:
    n, at = video.num_frames, 0
    table: dict[str, Any] = {
        "__metadata__": {
            "format": FORMAT,
            "facts": json.dumps({name: getattr(video, name) for name in _TOLD}),
            "notes": json.dumps(dict(notes)),
            "seal": SEAL,
        }
    }
    for name, dtype, of in (
        ("times", "F64", (n,)),
        ("frames", "U8", (n, *shape)),
        ("thumbnails", "U8", (n, THUMBNAIL, THUMBNAIL)),
    ):
        if name != "times" or video.times is not None:
            end = at + _DTYPES[dtype].itemsize * math.prod(of)
            table[name] = {"dtype": dtype, "shape": of, "data_offsets": [at, end]}
            at = end
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def _thumbnail(frame: Tensor) -> np.ndarray:
    from PIL import Image

    from usucl.data.video.images.image import thumbnail

    return thumbnail(Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()))
