"""The frames of many videos, decoded once and mapped from files afterwards."""

from __future__ import annotations

import itertools
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from usucl._files import DamagedFileError
from usucl._progress import stage
from usucl.data.catalog.entry import VideoEntry
from usucl.data.store.cache import make_room, mark_as_used, one_at_a_time
from usucl.data.store.frames import grey_as_one_channel, resize_each, resized, resized_size
from usucl.data.store.plan import StorePlan, is_direct
from usucl.data.video import Video, VideoError
from usucl.data.video.stored import PixelFile, Pixels, stored_pixels, write_stored

THREADS = 8
_log = logging.getLogger(__name__)


class FrameStore:
    """Frames of a list of videos with the short side resized, in files as far as they fit.

    Videos are decoded once, in order, until ``limit_bytes`` are used; frames of the others are
    decoded whenever they are asked for. Grey videos are stored with one channel. A later store of
    the same videos and short side decodes nothing: it checks the files' checksums and replaces
    those that are not whole. The files are mapped into memory, so processes share them, and a
    copy of the store for another process holds their paths alone.

    Where files cannot be written, or not enough of the disk is free, frames are kept in memory,
    and a warning is logged. Processes that are forked share it; others decode again.

    Args:
        entries: the videos.
        short_side: length of the resized short side, in pixels.
        limit_bytes: greatest size of all stored frames.
        folder: where the files are (default: ``frames`` in the package's cache).
        plan: what :meth:`StorePlan.of` made of the same arguments, if it is known.

    Raises:
        VideoError: a video can no longer be read.
        ValueError: ``USUCL_STORE_GB``, the limit of all files in the folder, is not a number.
    """

    def __init__(
        self,
        entries: Sequence[VideoEntry],
        short_side: int,
        limit_bytes: int,
        *,
        folder: Path | None = None,
        plan: StorePlan | None = None,
    ) -> None:
        self.entries = tuple(entries)
        self.short_side = short_side
        self._files: dict[int, Pixels] = {}
        self._memory: dict[int, Tensor] = {}
        self._no_files = ""  # why not, if frames are kept in memory
        self._fill(plan or StorePlan.of(entries, short_side, limit_bytes, folder))

    @property
    def stored_videos(self) -> int:
        """Number of videos that need not be decoded again."""
        return len(self._files) + len(self._memory)

    @property
    def stored_bytes(self) -> int:
        """Size of their frames."""
        mapped = sum(frames.nbytes for frames in self._files.values())
        return mapped + sum(frames.nbytes for frames in self._memory.values())

    def frames(self, index: int, frames: Sequence[int] | np.ndarray) -> Tensor:
        """Returns frames of video number ``index``: uint8 [n, 1 or 3, H, W].

        Raises:
            IndexError: there is no such frame.
            VideoError: the video is not stored, and can no longer be read.
        """
        if index in self._memory:
            return self._memory[index][torch.as_tensor(frames)]
        if (file := self._files.get(index)) is not None:
            try:
                return torch.from_numpy(file.read(frames))
            except OSError as error:
                _log.warning("%s: frames are decoded again", error)
                del self._files[index]
        return grey_as_one_channel(resized(self.entries[index].open(), frames, self.short_side))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_memory": {}}

    def _fill(self, plan: StorePlan) -> None:
        missing = not all(plan.ready[: plan.videos])
        if missing:
            self._make_room(plan)
        alone = plan.folder if missing and not self._no_files else None
        with one_at_a_time(alone, plan.key) if alone else nullcontext():
            left = plan.limit_bytes
            for index, frames in self._decoded(plan):
                left -= frames.nbytes if plan.sizes[index] else 0
                if left < 0:
                    break
                if isinstance(frames, Tensor):
                    self._memory[index] = frames
                else:
                    self._files[index] = frames

    def _make_room(self, plan: StorePlan) -> None:
        if plan.folder is None:
            self._stay_in_memory("there is no folder for them: set USUCL_CACHE")
            return
        ready = [p for p, is_there in zip(plan.places, plan.ready, strict=True) if p and is_there]
        try:
            if reason := make_room(plan.folder, plan.missing_bytes, ready):
                self._stay_in_memory(reason)
        except OSError as error:
            self._stay_in_memory(str(error))

    def _stay_in_memory(self, reason: str) -> None:
        if not self._no_files:
            _log.warning("decoded frames are kept in memory, not in files: %s", reason)
        self._no_files = reason

    def _decoded(self, plan: StorePlan) -> Iterator[tuple[int, Pixels | Tensor]]:
        """Yields the frames of the videos that may fit, in order; several are decoded at a time."""
        pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
        waiting: deque[tuple[int, Future[Pixels | Tensor]]] = deque()
        numbers = iter(range(plan.videos))
        ahead = 2 * THREADS
        with stage("Decoding videos", plan.videos, unit="videos") as bar:
            try:
                while True:
                    for index in itertools.islice(numbers, ahead - len(waiting)):
                        waiting.append((index, pool.submit(self._stored, plan, index)))
                    if not waiting:
                        return
                    index, frames = waiting.popleft()
                    yield index, frames.result()
                    bar.advance()
            finally:
                pool.shutdown(cancel_futures=True)

    def _stored(self, plan: StorePlan, index: int) -> Pixels | Tensor:
        video = self.entries[index].open()
        if is_direct(video, plan.short_side):
            assert isinstance(video, PixelFile)
            return video.pixels
        if (file := plan.places[index]) is not None:
            if (found := _whole(file, video, plan.short_side)) is not None:
                return found
            if not self._no_files:
                try:
                    return self._write(file, video)
                except OSError as error:
                    self._stay_in_memory(str(error))
        return grey_as_one_channel(resized(video, range(len(video)), plan.short_side))

    def _write(self, file: Path, video: Video) -> Pixels:
        file.parent.mkdir(exist_ok=True)

        def frames() -> Iterator[Tensor]:
            return resize_each(video.iter_frames(range(len(video))), self.short_side)

        write_stored(file, frames, video, notes={"made from": str(video.path)}, durable=False)
        return stored_pixels(file)[0]


def _whole(file: Path, video: Video, short_side: int) -> Pixels | None:
    """Returns the stored frames of a video, None if they are not there or not whole."""
    try:
        pixels, _ = stored_pixels(file)
    except (OSError, DamagedFileError, VideoError):
        return None
    n, _, *size = pixels.shape
    if (n, *size) != (len(video), *resized_size(video, short_side)):
        return None
    mark_as_used(file)
    return pixels
