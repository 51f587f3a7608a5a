"""Video files, decoded by FFmpeg through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from usucl.data.video.base import THUMBNAIL, Damaged, Video, VideoError, seconds
from usucl.data.video.container import opened_container, survey, words
from usucl.data.video.image import over_black
from usucl.data.video.limits import check_cost, limit

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own ignore transparency
_UPRIGHT = (1, 0, 0, 1)


class _DecodingError(VideoError):
    """A packet cannot be decoded, though the container could be read."""


class VideoFile(Video):
    """A video file. Its frames are turned upright, get square pixels, and lie over black."""

    _FACTS = (*Video._FACTS, "_turn", "_aspect")

    def __init__(self, path: Path, damaged: Damaged = "skip") -> None:
        self.path = path
        self._turn = _UPRIGHT
        self._aspect = 1.0  # width of a stored pixel over its height
        trouble = survey(path)
        stamps: list[float | None] = []
        if not trouble:
            try:
                stamps, corrupt = self._read(strict=True)
                if corrupt:
                    trouble.append(f"{corrupt} of {len(stamps)} frames are corrupt")
            except _DecodingError as error:
                trouble.append(error.reason)
        if trouble:
            self.damage = "damaged: " + "; ".join(trouble)
            if damaged == "skip":
                raise VideoError(path, self.damage)
            stamps, _ = self._read(strict=False)
        if not stamps:
            raise VideoError(path, self.damage or "no frame could be decoded")
        self.num_frames = len(stamps)
        self.times = seconds(stamps)
        if self.times is not None and self.num_frames > 1:
            self.frame_rate = float((self.num_frames - 1) / self.times[-1])

    def _read(self, *, strict: bool) -> tuple[list[float | None], int]:
        """Decodes everything; returns the frames' times and how many FFmpeg calls corrupt."""
        stamps: list[float | None] = []
        thumbnails: list[np.ndarray] = []
        corrupt = 0
        size = (0, 0)
        for frame in self._stream(strict=strict):
            found = (frame.width, frame.height)
            if not stamps:
                size = found
                self._turn = _turn(frame)
                width, height = round(size[0] * self._aspect), size[1]
                upright = self._turn[0] or self._turn[3]
                self.width, self.height = (width, height) if upright else (height, width)
            if found != size:
                raise VideoError(
                    self.path,
                    f"frames differ in size: frame {len(stamps)} is {found[0]}x{found[1]}, "
                    f"the frames before it are {size[0]}x{size[1]}",
                )
            if len(stamps) % 1024 == 0:
                check_cost(self.path, self.width, self.height, len(stamps) + 1)
            stamps.append(frame.time)
            thumbnails.append(frame.to_ndarray(format="gray", width=THUMBNAIL, height=THUMBNAIL))
            corrupt += frame.is_corrupt
        if thumbnails:
            self.thumbnails = np.stack([self._turned(picture) for picture in thumbnails])
        return stamps, corrupt

    def _stream(self, *, strict: bool) -> Iterator[Any]:
        """Yields frames up to the first error if ``strict``, otherwise those that decode well."""
        with opened_container(self.path) as (container, stream):
            self.frame_rate = float(stream.average_rate) if stream.average_rate else None
            self._aspect = float(stream.sample_aspect_ratio or 1)
            decoder = _decoder(stream, strict=strict, threads=not strict and not self.damage)
            done = 0
            for packet in _packets(container, stream, self.damage):
                try:
                    frames = decoder.decode(packet)
                except (av.error.FFmpegError, MemoryError) as error:
                    if not self.damage:
                        raise _DecodingError(
                            self.path, f"frame {done} cannot be decoded ({words(error)})"
                        ) from error
                    continue
                for frame in frames:
                    if not (self.damage and frame.is_corrupt):
                        done += 1
                        yield frame

    def _decode(self, indices: list[int]) -> Iterator[np.ndarray]:
        # Decoding starts at the first frame: seeking by time is faster, but goes wrong in damaged
        # and variable-rate files.
        wanted = iter(indices)
        target = next(wanted, None)
        if target is None:
            return
        for index, frame in enumerate(self._stream(strict=False)):
            if index == target:
                yield self._displayed(frame)
                target = next(wanted, None)
                if target is None:
                    return
        raise VideoError(self.path, f"frame {target} is gone: the file was changed after opening")

    def _displayed(self, frame: Any) -> np.ndarray:
        """Returns uint8 [H, W, 3], writable."""
        clear = (
            any(part.is_alpha for part in frame.format.components) or frame.format.name == "pal8"
        )
        scale = {} if self._aspect == 1 else {"width": round(frame.width * self._aspect)}
        picture = frame.to_ndarray(format="rgba" if clear else "rgb24", **scale)
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


def _decoder(stream: Any, *, strict: bool, threads: bool) -> Any:
    """Returns the stream's decoder, which stops at errors if ``strict``.

    Errors at the end of a file are lost where several threads decode it, so only whole files are
    read by many.
    """
    decoder = stream.codec_context
    if stream.metadata.get("alpha_mode") == "1" and decoder.name in _ALPHA_DECODERS:
        alpha = av.CodecContext.create(_ALPHA_DECODERS[decoder.name], "r")
        alpha.extradata = decoder.extradata
        decoder = alpha
    most = 2 * limit("USUCL_MAX_FRAME_PIXELS") + 2**20  # FFmpeg counts its own margins too
    options = {"max_pixels": str(most)}
    decoder.options = {**options, "err_detect": "explode"} if strict else options
    if threads:
        decoder.thread_type = "AUTO"
    else:
        decoder.thread_count = 1
    return decoder


def _packets(container: Any, stream: Any, damage: str | None) -> Iterator[Any]:
    """Yields the stream's packets, then one that asks for the frames held back."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except (av.error.FFmpegError, OSError):
        if not damage:  # otherwise what was read before it is enough
            raise
    last = av.Packet()
    last.time_base = stream.time_base
    yield last


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
