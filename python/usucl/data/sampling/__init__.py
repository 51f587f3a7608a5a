"""Which frames a batch holds, and their temporal windows over the training run."""

from usucl.data.sampling.batch import BatchPart, FrameBatch
from usucl.data.sampling.batches import FrameBatches
from usucl.data.sampling.curriculum import Curriculum
from usucl.data.sampling.frame_dataset import Frame, FrameDataset
from usucl.data.sampling.samplers import DenseSampler, FrameSampler, Sampler, UniformSampler

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
    "UniformSampler",
]
