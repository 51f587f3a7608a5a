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
    heads,
    lightly,
    pairs_of_videos,
    views_of,
)
from usucl.comparison.objectives.simclr import SimCLROptions
from usucl.data import FrameBatch, FrameSampler


@dataclass(frozen=True)
class USCLOptions(SimCLROptions):
    """Options of USCL, with the defaults of its authors' code.

    Attributes:
        alpha, beta: parameters of the Beta distribution of the shares in a mixture.
    """

    dim: int = 256
    temperature: float = 0.5
    alpha: float = 0.5
    beta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("alpha", self.alpha, 0, above=True)
        check_range("beta", self.beta, 0, above=True)


class USCL(Objective[USCLOptions]):
    """Chen et al., MICCAI 2021 (arXiv 2011.13066): sample pair generation, by its authors' code.

    Three frames x of a video, each augmented, make a positive pair of two mixtures with one share s
    that is drawn from Beta(alpha, beta) for every video::

        s x1 + (1 - s) x3   and   s x2 + (1 - s) x3

    A batch has one pair per video, so that no two pairs are of one video; the loss is NT-Xent, see
    :class:`SimCLR`. Each mixture passes the networks alone, with its own batch statistics. Source:
    github.com/983632847/USCL at 45e4534, ``dataset_wrapper_Ultrasound_Video_Mixup.py``.

    Departures: the paper's semi-supervised method adds the cross-entropy of a classifier of labels,
    which is left out, as no method of the comparison has labels; the augmentation and the optimiser
    are those of the comparison.
    """

    name = "uscl"
    title = "USCL"
    source = "Chen et al., MICCAI 2021, sample pair generation, and its code"
    options_type = USCLOptions

    @classmethod
    def sampler(cls, frames: int, options: USCLOptions) -> FrameSampler:
        """Returns a sampler of three frames per video."""
        return pairs_of_videos(frames, positives=2)

    def make_head(self, width: int) -> nn.Module:
        """Returns two layers without batch normalisation."""
        dim = self.options.dim
        head: nn.Module = heads().SimCLRProjectionHead(width, width, dim, batch_norm=False)
        return head

    def embed(self, batch: FrameBatch) -> Sequence[Tensor]:
        """Returns both mixtures of every video."""
        common, *others = views_of(batch)
        shares = Beta(self.options.alpha, self.options.beta)
        share = shares.sample((len(common), 1, 1, 1)).to(common)
        return [self.encoder(torch.lerp(common, other, share)) for other in others]

    def compare(self, embedded: Sequence[Tensor], batch: FrameBatch) -> Tensor:
        """Returns NT-Xent."""
        loss: Tensor = lightly("loss").NTXentLoss(self.options.temperature)(*embedded)
        return loss
