"""Which frames a batch holds, and their temporal windows over the training run."""

from usucl.data.sampling.batches import FrameBatch, FrameBatches
from usucl.data.sampling.curriculum import Curriculum
from usucl.data.sampling.frame_dataset import Frame, FrameDataset
from usucl.data.sampling.samplers import DenseSampler, FrameSampler, Sampler
from usucl.data.sampling.sharing import BatchPart

__all__ = [
    "BatchPart",
    "Curriculum",
    "DenseSampler",
    "Frame",
    "FrameBatch",
    "FrameBatches",
    "FrameDataset",
    "FrameSampler",
    "Sampler",
]
