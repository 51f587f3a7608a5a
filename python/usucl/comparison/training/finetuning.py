"""Training of the whole network with labels, from what an arm has come to."""

from __future__ import annotations

import copy

import torch

from usucl.comparison.design.config import ComparisonConfig
from usucl.comparison.training.fitting import Features, ObjectiveTraining, Trained, batches, fit
from usucl.comparison.training.supervised import Supervised, Truth
from usucl.data import UniformSampler, VideoCatalog
from usucl.models import FrameEncoder


def finetune(
    encoder: FrameEncoder, config: ComparisonConfig, videos: VideoCatalog, truth: Truth, seed: int
) -> Trained:
    """Trains a copy of an encoder, and a linear layer per column of labels, on a few patients.

    Args:
        encoder: where it starts; it stays as it is.
        config: the options of the comparison, ``finetune`` among them: the number of steps.
        videos: the videos whose labels are known.
        truth: their labels; a column without a label among them teaches nothing.
        seed: seed of the first weights of the layers and of every random draw.

    Raises:
        RuntimeError: the loss is not finite.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = copy.deepcopy(encoder).cpu().train()
        features = Features(network)
        objective = Supervised(features, features.width, truth)
        data = batches(videos, UniformSampler(config.frames), config, seed)
        module = ObjectiveTraining(network, objective, config, config.finetune)
        recorder = fit(module, data, config, config.finetune)
    return recorder.trained(network, objective)
