"""Frames of a video file as FFmpeg decodes them, from the start or from a key frame."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from usucl.data.video.base import VideoError
from usucl.data.video.ffmpeg.container import Survey, opened_container, survey, words
from usucl.data.video.limits import limit

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own ignore transparency


class DecodingError(VideoError):
    """A packet cannot be decoded, though the container could be read."""


class KeyFrame(NamedTuple):
    """A frame from which decoding can start.

    Attributes:
        number: its place among all frames.
        place: what the container is asked for to find it, in the stream's unit of time.
        stamp: its own time in the same unit.
    """

    number: int
    place: int
    stamp: int


class Fingerprint(NamedTuple):
    """What tells a frame from others: its time in the stream's unit, and a checksum."""

    stamp: int | None
    checksum: int


class FrameStream:
    """An opened video file.

    Attributes:
        rate: the mean number of frames per second that the header states, None where it does not.
        aspect: width of a stored pixel over its height.
        places: by the time of each key frame that was passed, its ``place``.
    """

    def __init__(
        self, path: Path, container: Any, stream: Any, decoder: Any, damaged: bool
    ) -> None:
        self._path = path
        self._container = container
        self._stream = stream
        self._decoder = decoder
        self._damaged = damaged
        self.rate = float(stream.average_rate) if stream.average_rate else None
        self.aspect = float(stream.sample_aspect_ratio or 1)
        self.places: dict[int, int] = {}

    def survey(self) -> Survey:
        """Reads all packets; see :func:`usucl.data.video.ffmpeg.container.survey`."""
        return survey(self._path, self._container, self._stream)

    def frames(self, packets: Iterable[Any] | None = None) -> Iterator[Any]:
        """Yields all frames from the first; of damaged files those that decode well.

        Args:
            packets: all of the stream's packets, where they have been read already.

        Raises:
            DecodingError: a whole file has a frame that cannot be decoded.
        """
        done = 0
        for packet in self._packets(packets):
            try:
                frames = self._decoder.decode(packet)
            except (av.error.FFmpegError, MemoryError) as error:
                if not self._damaged:
                    raise DecodingError(
                        self._path, f"frame {done} cannot be decoded ({words(error)})"
                    ) from error
                continue
            for frame in frames:
                if not (self._damaged and frame.is_corrupt):
                    done += 1
                    yield frame

    def frames_from(self, key: KeyFrame) -> Iterator[Any]:
        """Yields the frames from a key frame on, to the last; none if it is not found."""
        self._container.seek(key.place, stream=self._stream)
        self._decoder.flush_buffers()
        found = False
        for packet in self._packets():
            try:
                frames = self._decoder.decode(packet)
            except av.error.FFmpegError:
                if found:
                    raise
                continue  # it needs frames from before the place
            for frame in frames:
                found = found or frame.pts == key.stamp
                if found:
                    yield frame
                elif frame.pts is None or frame.pts > key.stamp:
                    return

    def _packets(self, packets: Iterable[Any] | None = None) -> Iterator[Any]:
        """Yields the stream's packets, then one that asks for the frames held back."""
        try:
            for packet in self._container.demux(self._stream) if packets is None else packets:
                if packet.size:
                    if packet.is_keyframe and packet.pts is not None:
                        self.places[packet.pts] = packet.pts if packet.dts is None else packet.dts
                    yield packet
        except (av.error.FFmpegError, OSError):
            if not self._damaged:  # otherwise what was read before it is enough
                raise
        last = av.Packet()
        last.time_base = self._stream.time_base
        yield last


@contextmanager
def opened_stream(
    path: Path, *, strict: bool = False, damaged: bool = False
) -> Iterator[FrameStream]:
    """Yields the frames of a file, which stop at errors if ``strict``.

    Errors at the end of a file are lost where several threads decode it, so only whole files are
    read by many.

    Raises:
        VideoError: the file cannot be read.
    """
    with opened_container(path) as (container, stream):
        decoder = stream.codec_context
        if stream.metadata.get("alpha_mode") == "1" and decoder.name in _ALPHA_DECODERS:
            alpha = av.CodecContext.create(_ALPHA_DECODERS[decoder.name], "r")
            alpha.extradata = decoder.extradata
            decoder = alpha
        most = 2 * limit("USUCL_MAX_FRAME_PIXELS") + 2**20  # FFmpeg counts its own margins too
        options = {"max_pixels": str(most)}
        decoder.options = {**options, "err_detect": "explode"} if strict else options
        if strict or damaged:
            decoder.thread_count = 1
        else:
            decoder.thread_type = "AUTO"
        yield FrameStream(path, container, stream, decoder, damaged)


def fingerprint(frame: Any) -> Fingerprint:
    """Returns a frame's time, and a checksum of its pixels as stored, without margins of rows."""
    sum_ = 0
    for number, plane in enumerate(frame.planes):
        bits = (part.bits for part in frame.format.components if part.plane == number)
        row = plane.width * sum(-(-b // 8) for b in bits)
        pixels = np.frombuffer(plane, np.uint8)
        if 0 < row < plane.line_size:
            pixels = pixels[: plane.height * plane.line_size].reshape(plane.height, -1)[:, :row]
        sum_ = zlib.crc32(np.ascontiguousarray(pixels).data, sum_)
    return Fingerprint(frame.pts, sum_)
