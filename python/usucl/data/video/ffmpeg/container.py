"""Containers of video files, opened by FFmpeg, and what they say about their contents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import av

from usucl.data.video.base import VideoError
from usucl.data.video.ffmpeg.structure import hole
from usucl.data.video.limits import check_cost

# Names that leave no doubt. Others, such as .ts and .ogg, are of other kinds of files too.
_SUFFIXES = (
    ".3g2 .3gp .asf .avi .f4v .flv .gif .h264 .h265 .hevc .ivf .m1v .m2ts .m2v .m4v .mjpeg .mjpg "
    ".mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .ogv .qt .vob .webm .wmv .wtv .y4m"
)
CONTAINER_SUFFIXES = frozenset(_SUFFIXES.split())
# FFmpeg chooses the format by content. These hold their own frames; others, such as playlists,
# fetch them from further files.
_OPTIONS = {
    "format_whitelist": "asf,avi,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts,"
    "mpegvideo,mxf,nut,ogg,rm,wtv,yuv4mpegpipe",
    "protocol_whitelist": "file",
}
# Packets of a small file are kept from the survey until they are decoded.
_SMALL = 2**23  # bytes
_FEW = 1024  # packets


@contextmanager
def opened_container(path: Path) -> Iterator[tuple[Any, Any]]:
    """Yields the container and its video stream; errors in the body become a ``VideoError``.

    Raises:
        VideoError: the file is empty, of another format, or holds no video.
    """
    try:
        if path.stat().st_size == 0:
            raise VideoError(path, "the file is empty")
        # FFmpeg takes the text before a colon for a protocol, unless a slash comes first.
        with av.open(str(path.absolute()), options=_OPTIONS, metadata_errors="replace") as opened:
            stream = opened.streams.best("video")  # a cover picture only if nothing else is there
            if stream is None or "attached_pic" in str(stream.disposition):
                raise VideoError(path, "the file holds no video stream")
            if stream.codec_context is None:
                raise VideoError(path, "its video is of a codec that FFmpeg does not decode")
            yield opened, stream
    except VideoError:
        raise
    except Exception as error:  # PyAV raises ValueErrors too for what it cannot represent
        raise VideoError(path, f"cannot be decoded ({words(error)})") from error


class Survey(NamedTuple):
    """What reading all packets of a file has told, without decoding.

    Attributes:
        trouble: signs that some are missing or broken.
        total: how many packets of the video stream there are.
        packets: these, None if they are too many to be kept.
    """

    trouble: list[str]
    total: int
    packets: list[Any] | None


def survey(path: Path, container: Any, stream: Any) -> Survey:
    """Reads all packets of a file that was just opened, up to its end.

    Videos that would cost too much to decode are refused on the way.

    Raises:
        VideoError: the file cannot be read or is too large.
    """
    packets = broken = 0
    last: dict[int, float] = {}  # by stream, seconds
    gap = end = 0.0
    trouble: list[str] = []
    kept: list[Any] = []
    most = _FEW if container.size <= _SMALL else 0
    size = stream.codec_context.width or 1, stream.codec_context.height or 1
    check_cost(path, *size)
    timed = [s for s in container.streams if s.type in ("audio", "video")]
    units = {s.index: float(s.time_base or 0) for s in timed}  # seconds
    try:
        for packet in container.demux(timed):
            if not packet.size:
                continue
            broken += packet.is_corrupt
            if packet.stream_index == stream.index:
                packets += 1
                if len(kept) < most:
                    kept.append(packet)
                if packets % 1024 == 0:
                    check_cost(path, *size, packets)
            if packet.pts is None:
                continue
            unit = units[packet.stream_index]
            time = (packet.pts if packet.dts is None else packet.dts) * unit
            length = (packet.duration or 0) * unit
            gap = max(gap, length, time - last.get(packet.stream_index, time))
            last[packet.stream_index] = time
            end = max(end, packet.pts * unit + length)
    except (av.error.FFmpegError, OSError) as error:
        trouble.append(f"cannot be read after {packets} frames ({words(error)})")
    check_cost(path, *size, packets)
    if broken:
        trouble.append(f"{broken} packets are broken")
    promised = _promised_packets(container, stream)
    if packets < promised:
        trouble.append(f"{packets} of {promised} frames are there")
    promised_end = _promised_end(container)
    if promised_end is not None and end < promised_end - 1.5 * gap - 0.01:
        trouble.append(f"it ends after {end:.4g} of {promised_end:.4g} s")
    if broken_off := hole(path, container.format.name):
        trouble.append(broken_off)
    return Survey(trouble, packets, kept if len(kept) == packets else None)


def words(error: Exception) -> str:
    """Returns an error's message without the file's name."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _promised_packets(container: Any, stream: Any) -> int:
    """Returns how many packets the index or header of AVI and MP4 lists; 0 in other formats."""
    if not container.format.name.startswith(("avi", "mov")):
        return 0
    index = getattr(stream, "index_entries", ())  # PyAV 16 and later
    # Empty packets of AVI repeat a frame. Edit lists of MP4 leave frames of the header out.
    listed = sum(entry.size > 0 for entry in index)
    # A writer that could not go back to the header left a count there that no file can hold.
    counted = container.format.name == "avi" and stream.frames <= container.size // 8
    return listed or (stream.frames if counted else 0)


def _promised_end(container: Any) -> float | None:
    """Returns the end in seconds that the header states, None in formats where it is a guess."""
    stated = container.format.name.startswith(("asf", "matroska", "mov"))
    if not stated or not container.duration:
        return None
    return float(container.duration / av.time_base)
