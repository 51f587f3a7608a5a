"""USCL: positive pairs are mixtures of frames of a video, with one frame in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Beta

from usucl._ranges import check_range
from usucl.comparison.objectives.objective import (
    Objective,
    encode_together,
    heads,
    lightly,
    pairs_of_videos,
    views_of,
)
from usucl.comparison.objectives.simclr import SimCLROptions
from usucl.data import FrameBatch, FrameSampler


@dataclass(frozen=True)
class USCLOptions(SimCLROptions):
    """Options of USCL.

    Attributes:
        alpha, beta: parameters of the Beta distribution of the shares in a mixture.
    """

    temperature: float = 0.5
    alpha: float = 0.5
    beta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("alpha", self.alpha, 0, above=True)
        check_range("beta", self.beta, 0, above=True)


class USCL(Objective[USCLOptions]):
    """Chen et al., MICCAI 2021 (arXiv 2011.13066): sample pair generation.

    Three frames x of a video make a positive pair of two mixtures, with shares s1 and s2 that are
    drawn from Beta(alpha, beta)::

        s1 x1 + (1 - s1) x3   and   s2 x2 + (1 - s2) x3

    A batch has one pair per video, so that no two pairs are of one video; the loss is NT-Xent, see
    :class:`SimCLR`.

    Departures: the paper's semi-supervised method adds the cross-entropy of a classifier of labels,
    which is left out, as no method of the comparison has labels; frames are mixed after their
    augmentation; the augmentation and the optimiser are those of the comparison.
    """

    name = "uscl"
    title = "USCL"
    source = "Chen et al., MICCAI 2021, sample pair generation"
    options_type = USCLOptions

    @classmethod
    def sampler(cls, frames: int, options: USCLOptions) -> FrameSampler:
        """Returns a sampler of three frames per video."""
        return pairs_of_videos(frames, positives=2)

    def make_head(self, width: int) -> nn.Module:
        """Returns two layers with batch normalisation."""
        head: nn.Module = heads().SimCLRProjectionHead(width, width, self.options.dim)
        return head

    def embed(self, batch: FrameBatch) -> Sequence[Tensor]:
        """Returns both mixtures of every video."""
        common, *others = views_of(batch)
        shares = Beta(self.options.alpha, self.options.beta)
        mixed = []
        for other in others:
            share = shares.sample((len(other), 1, 1, 1)).to(other)
            mixed.append(torch.lerp(common, other, share))
        return encode_together(self.encoder, mixed)

    def compare(self, embedded: Sequence[Tensor], batch: FrameBatch) -> Tensor:
        """Returns NT-Xent."""
        loss: Tensor = lightly("loss").NTXentLoss(self.options.temperature)(*embedded)
        return loss
