"""Single frames of a catalogue, for training loops that make their own pairs."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from usucl.data.catalog.catalog import VideoCatalog
from usucl.data.sampling.clock import Clock, TimeUnit, patient_numbers


class Frame(NamedTuple):
    """One frame with what the loss asks of it; a data loader stacks the fields.

    ``video``, ``time`` and ``patient`` are those of :class:`usucl.losses.Frames`.
    """

    image: Any  # uint8 [3, H, W], or what the transform makes of it
    video: int  # index in the catalogue
    time: float  # in the unit of the data set
    patient: int  # -1 where unknown
    frame: int  # index in the video


class FrameDataset(Dataset[Frame]):
    """Every frame of a catalogue, video after video; each is decoded when it is asked for.

    The fields are those that :func:`usucl.losses.hard_negative_nce` compares frames by, so batches
    of any size and order serve as anchors and keys::

        frames = FrameDataset(VideoCatalog.scan("videos"), transform)
        for image, video, time, patient, _ in DataLoader(frames, 64, shuffle=True):
            first, second = encode(image), encode(augment(image))
            anchors = Frames(first, video, time.float(), patient)

    Args:
        catalog: the videos.
        transform: maps a uint8 image ``[3, H, W]`` to what the data set returns; by default the
            image stays as it is. A list or tuple of two views is a possible result.
        time_unit: ``"fraction"`` (frame index / number of frames), ``"frames"`` or ``"seconds"``.

    Raises:
        ValueError: the catalogue is empty, or the unit is unknown, or it is seconds and the frame
            rate of a video is unknown.
    """

    def __init__(
        self,
        catalog: VideoCatalog,
        transform: Callable[[Tensor], Any] | None = None,
        *,
        time_unit: TimeUnit = "fraction",
    ) -> None:
        if not len(catalog):
            raise ValueError("catalog must hold at least one video, got none")
        self.catalog = catalog
        self.transform = transform
        self.clock = Clock(catalog, time_unit)
        self.patients = patient_numbers(catalog)
        lengths = (entry.num_frames for entry in catalog)
        self._ends = list(itertools.accumulate(lengths))

    def __len__(self) -> int:
        return self._ends[-1]

    def __repr__(self) -> str:
        return f"FrameDataset({len(self)} frames of {len(self.catalog)} videos)"

    def __getitem__(self, index: int) -> Frame:
        """Returns the frame at ``index``, which may count from the end.

        Raises:
            IndexError: there is no such frame.
            VideoError: the video has changed since it was catalogued and can no longer be read.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be in [-{len(self)}, {len(self)}), got {index}")
        index %= len(self)
        video = bisect.bisect_right(self._ends, index)
        frame = index - (self._ends[video - 1] if video else 0)
        image = self.catalog.entries[video].open().frames([frame])[0]
        time = self.clock.times(np.array([video]), np.array([frame]))[0]
        return Frame(
            image if self.transform is None else self.transform(image),
            video,
            float(time),
            int(self.patients[video]),
            frame,
        )
