"""Training with the labels that the probes are asked for: what pretraining could reach at best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from usucl.data import FrameBatch

Truth: TypeAlias = Mapping[str, tuple[int, Sequence[NDArray[np.int64]]]]
"""By column of labels, the number of classes, and the class of every frame of every video, -1
without one."""


class Supervised(nn.Module):
    """Cross-entropy of linear layers on the features, one per column of labels, all trained.

    For one column, L = sum_i w[y_i] CE(W f(x_i) + b, y_i) / sum_i w[y_i] over both views of every
    frame with a label, w[c] inversely proportional to the number of frames of class c among the
    training videos. The loss is the mean over the columns.

    Args:
        features: maps normalised images ``[B, 3, S, S]`` to features ``[B, width]``.
        width: number of features.
        truth: the labels.
    """

    def __init__(
        self,
        features: nn.Module,
        width: int,
        truth: Truth,
    ) -> None:
        super().__init__()
        self.features = features
        self.columns = tuple(truth)
        self.classifiers = nn.ModuleList(nn.Linear(width, n) for n, _ in truth.values())
        for number, (classes, of_videos) in enumerate(truth.values()):
            every = np.concatenate(of_videos)
            count = np.bincount(every[every >= 0], minlength=classes)
            rare = count.sum() / (max((count > 0).sum(), 1) * count.clip(1))
            weight = np.where(count > 0, rare, 0.0)
            self.register_buffer(f"truth{number}", torch.from_numpy(every))
            self.register_buffer(f"weight{number}", torch.from_numpy(weight).float())
            starts = np.cumsum([0, *map(len, of_videos)])[:-1]
        self.register_buffer("start", torch.from_numpy(starts))

    def loss(self, batch: FrameBatch) -> Tensor:
        """Returns the mean over the columns of the weighted cross-entropy of labelled frames."""
        place = self.get_buffer("start")[batch.video] + batch.frame
        features = self.features(torch.cat([batch.anchor_view, batch.positive_view]))
        losses = []
        for number, classifier in enumerate(self.classifiers):
            truth = self.get_buffer(f"truth{number}")[place].repeat(2)
            logits = classifier(features).float()
            if (truth >= 0).any():
                weight = self.get_buffer(f"weight{number}")
                losses.append(F.cross_entropy(logits, truth, weight, ignore_index=-1))
            else:
                losses.append(logits.sum() * 0)
        return torch.stack(losses).mean()

    def after_step(self, step: int) -> None:
        """Does nothing: there is no momentum encoder and no queue."""

    @torch.no_grad()
    def predict(self, column: str, features: Tensor) -> Tensor:
        """Returns the probabilities of a column's classes ``[n, C]`` from features ``[n, F]``."""
        classifier = self.classifiers[self.columns.index(column)]
        weight = next(classifier.parameters())
        probability: Tensor = classifier(features.to(weight)).float().softmax(1).cpu()
        return probability
