"""Video files, decoded by FFmpeg through PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from usucl.data.video.base import THUMBNAIL, Damaged, Video, VideoError, seconds
from usucl.data.video.ffmpeg.seeking import frames_at, is_worth_seeking, reliable_key_frames
from usucl.data.video.ffmpeg.stream import (
    DecodingError,
    Fingerprint,
    FrameStream,
    KeyFrame,
    fingerprint,
    opened_stream,
)
from usucl.data.video.images.image import over_black
from usucl.data.video.limits import check_cost

# Older versions of PyAV cannot be told how many threads scale a picture; one is enough for each.
_ONE_THREAD = {"threads": 1} if "threads" in (VideoReformatter.reformat.__doc__ or "") else {}
_UPRIGHT = (1, 0, 0, 1)


@dataclass
class _Decoded:
    """What decoding a file tells of its frames.

    Attributes:
        seekable: whether it is taken down what seeking needs: the key frames, and all prints.
    """

    seekable: bool = False
    times: list[float | None] = field(default_factory=list)  # seconds
    prints: list[Fingerprint] = field(default_factory=list)
    keys: list[KeyFrame] = field(default_factory=list)
    corrupt: int = 0

    def add(self, frame: Any, stream: FrameStream) -> None:
        """Takes down the next frame of a stream."""
        if self.seekable:
            if frame.key_frame and frame.pts is not None:
                place = stream.places.get(frame.pts, frame.pts)
                self.keys.append(KeyFrame(len(self.times), place, frame.pts))
            self.prints.append(fingerprint(frame))
        self.times.append(frame.time)
        self.corrupt += frame.is_corrupt


class VideoFile(Video):
    """A video file. Its frames are turned upright, get square pixels, and lie over black."""

    _FACTS = (*Video._FACTS, "_turn", "_aspect", "_keys")

    def __init__(self, path: Path, damaged: Damaged = "skip") -> None:
        self.path = path
        self._turn = _UPRIGHT
        self._aspect = 1.0  # width of a stored pixel over its height
        self._keys: tuple[KeyFrame, ...] = ()  # where decoding can start, beside the start
        trouble, decoded = self._read_strictly()
        if trouble:
            self.damage = "damaged: " + "; ".join(trouble)
            if damaged == "skip":
                raise VideoError(path, self.damage)
            with opened_stream(path, damaged=True) as stream:
                decoded = self._read(stream, stream.frames())
        if not decoded.times:
            raise VideoError(path, self.damage or "no frame could be decoded")
        self.num_frames = len(decoded.times)
        self.times = seconds(decoded.times)
        if self.times is not None and self.num_frames > 1:
            self.frame_rate = float((self.num_frames - 1) / self.times[-1])
        if not self.damage:
            self._keys = reliable_key_frames(path, decoded.keys, decoded.prints)

    @classmethod
    def restored(cls, path: Path, facts: Mapping[str, Any]) -> VideoFile:
        """Returns the video from the facts of an earlier opening; see :meth:`Video.restored`."""
        video = super().restored(path, facts)
        video._keys = tuple(KeyFrame(*key) for key in video._keys)
        return video

    def _read_strictly(self) -> tuple[list[str], _Decoded]:
        """Returns signs of damage, and what decoding everything has told if there are none."""
        with opened_stream(self.path, strict=True) as stream:
            trouble, total, packets = stream.survey()
            decoded = _Decoded()
            seekable = is_worth_seeking(total)
            if trouble:
                return trouble, decoded
            try:
                if packets is not None:
                    decoded = self._read(stream, stream.frames(packets), seekable=seekable)
                else:
                    with opened_stream(self.path, strict=True) as anew:
                        decoded = self._read(anew, anew.frames(), seekable=seekable)
            except DecodingError as error:
                return [error.reason], decoded
        if decoded.corrupt:
            trouble.append(f"{decoded.corrupt} of {len(decoded.times)} frames are corrupt")
        return trouble, decoded

    def _read(
        self, stream: FrameStream, frames: Iterable[Any], *, seekable: bool = False
    ) -> _Decoded:
        """Takes down what all frames of a stream tell."""
        found = _Decoded(seekable)
        thumbnails: list[np.ndarray] = []
        small = VideoReformatter()
        size = (0, 0)
        self.frame_rate, self._aspect = stream.rate, stream.aspect
        for number, frame in enumerate(frames):
            if not number:
                size = (frame.width, frame.height)
                self._turn = _turn(frame)
                width, height = round(size[0] * self._aspect), size[1]
                upright = self._turn[0] or self._turn[3]
                self.width, self.height = (width, height) if upright else (height, width)
            if (frame.width, frame.height) != size:
                raise VideoError(
                    self.path,
                    f"frames differ in size: frame {number} is {frame.width}x{frame.height}, "
                    f"the frames before it are {size[0]}x{size[1]}",
                )
            if number % 1024 == 0:
                check_cost(self.path, self.width, self.height, number + 1)
            found.add(frame, stream)
            thumbnails.append(_small(small, frame))
        if thumbnails:
            self.thumbnails = np.stack([self._turned(picture) for picture in thumbnails])
        return found

    def _decode(self, indices: list[int]) -> Iterator[np.ndarray]:
        if not indices:
            return
        found = -1
        damaged = self.damage is not None
        converter = VideoReformatter()
        for index, frame in frames_at(self.path, self._keys, indices, damaged=damaged):
            yield self._displayed(converter, frame)
            found = index
        if found < indices[-1]:
            gone = next(index for index in indices if index > found)
            raise VideoError(self.path, f"frame {gone} is gone: the file was changed after opening")

    def _displayed(self, converter: VideoReformatter, frame: Any) -> np.ndarray:
        """Returns uint8 [H, W, 3], writable."""
        clear = (
            any(part.is_alpha for part in frame.format.components) or frame.format.name == "pal8"
        )
        width = frame.width if self._aspect == 1 else round(frame.width * self._aspect)
        picture = _scaled(converter, frame, "rgba" if clear else "rgb24", width, frame.height)
        if clear:
            picture = over_black(picture)
        return self._turned(picture)

    def _turned(self, picture: np.ndarray) -> np.ndarray:
        if self._turn == _UPRIGHT:
            return picture
        right, down_of_x, right_of_y, down = self._turn
        if not right:
            picture = picture.swapaxes(0, 1)
        picture = picture[:: down or down_of_x, :: right or right_of_y]
        return np.ascontiguousarray(picture)


def _scaled(
    converter: VideoReformatter, frame: Any, pixels: str, width: int, height: int
) -> np.ndarray:
    """Returns the picture of a frame, by tables and threads that are made once per video.

    A frame's own conversion makes them again each time, and takes ten times as long.
    """
    found = converter.reformat(frame, width=width, height=height, format=pixels, **_ONE_THREAD)
    return found.to_ndarray()


def _small(converter: VideoReformatter, frame: Any) -> np.ndarray:
    """Returns the picture of a frame as uint8 [32, 32], grey."""
    found = converter.reformat(
        frame, width=THUMBNAIL, height=THUMBNAIL, format="gray", **_ONE_THREAD
    )
    plane: Any = found.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(THUMBNAIL, -1)[:, :THUMBNAIL].copy()


def _turn(frame: Any) -> tuple[int, int, int, int]:
    """Returns the signs (a, b, c, d) of the display matrix: x' = a x + c y, y' = b x + d y.

    Matrices that do not turn by multiples of 90 degrees are ignored.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _UPRIGHT
    a, b, _, c, d, *_ = np.frombuffer(data, dtype="<i4", count=9).tolist()
    size = max(map(abs, (a, b, c, d)))
    signs = tuple(0 if abs(v) < size / 100 else (1 if v > 0 else -1) for v in (a, b, c, d))
    square = sum(map(abs, signs)) == 2 and bool(signs[0]) == bool(signs[3])
    return signs if square else _UPRIGHT  # type: ignore[return-value]
