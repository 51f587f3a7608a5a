"""SimCLR: two views of a frame are alike, all other frames of the batch are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from usucl._ranges import check_range
from usucl.comparison.objectives.objective import (
    Objective,
    ObjectiveOptions,
    encode_together,
    heads,
    lightly,
    views_of,
)
from usucl.data import FrameBatch, UniformSampler


@dataclass(frozen=True)
class SimCLROptions(ObjectiveOptions):
    """Options of SimCLR.

    Attributes:
        temperature: divides the cosine similarities.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("temperature", self.temperature, 0, above=True)


class SimCLR(Objective[SimCLROptions]):
    """Chen et al., ICML 2020 (arXiv 2002.05709): NT-Xent.

    With cosine similarity s and temperature t, the loss of a positive pair (i, j) among the 2 N
    views of a batch, meaned over both orders of all pairs, is::

        -log(exp(s_ij / t) / sum over k != i of exp(s_ik / t))

    Source: github.com/google-research/simclr at be133b3, ``objective.py``.

    Departures: the authors' code sums both orders and so has twice this; the augmentation and the
    optimiser are those of the comparison; the head is as wide as the features, which is the paper's
    2048 for ResNet-50.
    """

    name = "simclr"
    title = "SimCLR"
    source = "Chen et al., ICML 2020, NT-Xent"
    options_type = SimCLROptions

    @classmethod
    def sampler(cls, frames: int, options: SimCLROptions) -> UniformSampler:
        """Returns a sampler of frames of all videos, each with two views."""
        return UniformSampler(frames)

    def make_head(self, width: int) -> nn.Module:
        """Returns two layers with batch normalisation."""
        head: nn.Module = heads().SimCLRProjectionHead(width, width, self.options.dim)
        return head

    def embed(self, batch: FrameBatch) -> Sequence[Tensor]:
        """Returns both views of every frame."""
        return encode_together(self.encoder, views_of(batch))

    def compare(self, embedded: Sequence[Tensor], batch: FrameBatch) -> Tensor:
        """Returns NT-Xent."""
        loss: Tensor = lightly("loss").NTXentLoss(self.options.temperature)(*embedded)
        return loss
