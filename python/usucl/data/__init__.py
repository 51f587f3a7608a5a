"""Ultrasound videos: reading, cataloguing, sampling, augmenting, and a synthetic set.

Lightning is imported when ``VideoDataModule`` is first used; nothing else here needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from usucl.data.augmentation import Augmentation, UltrasoundAugmentation
from usucl.data.catalog.catalog import VideoCatalog
from usucl.data.catalog.entry import VideoEntry
from usucl.data.catalog.scanning.search import Skipped
from usucl.data.catalog.summary import Note, Summary
from usucl.data.inspection import Inspection, Sector, find_sector, inspect
from usucl.data.phantom import write_phantom
from usucl.data.sampling.batch import BatchPart, FrameBatch
from usucl.data.sampling.batches import FrameBatches
from usucl.data.sampling.curriculum import Curriculum
from usucl.data.sampling.frame_dataset import Frame, FrameDataset
from usucl.data.sampling.samplers import DenseSampler, FrameSampler, Sampler, UniformSampler
from usucl.data.store import FrameStore, StorePlan, load_frames
from usucl.data.transforms import normalise
from usucl.data.video import Video, VideoError, open_video

if TYPE_CHECKING:
    from usucl.data.sampling.datamodule import VideoDataModule

__all__ = [
    "Augmentation",
    "BatchPart",
    "Curriculum",
    "DenseSampler",
    "Frame",
    "FrameBatch",
    "FrameBatches",
    "FrameDataset",
    "FrameSampler",
    "FrameStore",
    "Inspection",
    "Note",
    "Sampler",
    "Sector",
    "Skipped",
    "StorePlan",
    "Summary",
    "UltrasoundAugmentation",
    "UniformSampler",
    "Video",
    "VideoCatalog",
    "VideoDataModule",
    "VideoEntry",
    "VideoError",
    "find_sector",
    "inspect",
    "load_frames",
    "normalise",
    "open_video",
    "write_phantom",
]


def __getattr__(name: str) -> Any:
    """Imports the data module, and with it Lightning, once it is asked for."""
    if name != "VideoDataModule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from usucl.data.sampling.datamodule import VideoDataModule

    globals()[name] = VideoDataModule
    return VideoDataModule


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
