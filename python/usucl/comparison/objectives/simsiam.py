"""SimSiam: each view predicts the other, whose side of the loss has no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from usucl._ranges import check_range
from usucl.comparison.objectives.objective import (
    Objective,
    ObjectiveOptions,
    heads,
    lightly,
    views_of,
)
from usucl.data import FrameBatch, UniformSampler


@dataclass(frozen=True)
class SimSiamOptions(ObjectiveOptions):
    """Options of SimSiam.

    Attributes:
        bottleneck: width of the predictor's hidden layer.
    """

    dim: int = 2048
    bottleneck: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("bottleneck", self.bottleneck, 1)


class SimSiam(Objective[SimSiamOptions]):
    """Chen and He, CVPR 2021 (arXiv 2011.10566), section 3.

    With projections z of two views, predictions p = h(z) and the negative cosine similarity D::

        D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2

    Each view passes the networks alone, with its own batch statistics. Source:
    github.com/facebookresearch/simsiam, ``builder.py``.

    Departures: the augmentation and the optimiser are those of the comparison, so the predictor's
    learning rate decays with the others', and residual blocks start as the backbone has them.
    """

    name = "simsiam"
    title = "SimSiam"
    source = "Chen and He, CVPR 2021, section 3"
    options_type = SimSiamOptions

    def __init__(
        self,
        features: nn.Module,
        width: int,
        steps: int,
        options: SimSiamOptions | None = None,
    ) -> None:
        super().__init__(features, width, steps, options)
        dim, bottleneck = self.options.dim, self.options.bottleneck
        self.predictor = heads().SimSiamPredictionHead(dim, bottleneck, dim)

    @classmethod
    def sampler(cls, frames: int, options: SimSiamOptions) -> UniformSampler:
        """Returns a sampler of frames of all videos, each with two views."""
        return UniformSampler(frames)

    def make_head(self, width: int) -> nn.Module:
        """Returns three layers with batch normalisation."""
        dim = self.options.dim
        head: nn.Module = heads().SimSiamProjectionHead(width, dim, dim)
        return head

    def embed(self, batch: FrameBatch) -> Sequence[Tensor]:
        """Returns the predictions of both views, and then their projections."""
        first, second = (self.encoder(view) for view in views_of(batch))
        return self.predictor(first), self.predictor(second), first, second

    def compare(self, embedded: Sequence[Tensor], batch: FrameBatch) -> Tensor:
        """Returns the mean of both negative similarities."""
        predicted1, predicted2, first, second = embedded
        distance = lightly("loss").NegativeCosineSimilarity()
        loss: Tensor = distance(predicted1, second.detach()) + distance(predicted2, first.detach())
        return loss / 2
