"""Ultrasound videos: reading, cataloguing, sampling, augmenting, and a synthetic set."""

from usucl.data.catalog import Skipped, VideoCatalog, VideoEntry
from usucl.data.curriculum import Curriculum
from usucl.data.datamodule import FrameBatch, VideoDataModule
from usucl.data.frames import FrameStore, load_frames
from usucl.data.phantom import write_phantom
from usucl.data.sampling import DenseSampler, FrameSampler, Sampler
from usucl.data.transforms import Augmentation, normalise
from usucl.data.video import Video, VideoError, open_video

__all__ = [
    "Augmentation",
    "Curriculum",
    "DenseSampler",
    "FrameBatch",
    "FrameSampler",
    "FrameStore",
    "Sampler",
    "Skipped",
    "Video",
    "VideoCatalog",
    "VideoDataModule",
    "VideoEntry",
    "VideoError",
    "load_frames",
    "normalise",
    "open_video",
    "write_phantom",
]
