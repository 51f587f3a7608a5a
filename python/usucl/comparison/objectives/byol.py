"""BYOL: each view predicts what a momentum copy of the encoder makes of the other."""

from __future__ import annotations

import math
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
from usucl.models import MomentumEncoder


@dataclass(frozen=True)
class BYOLOptions(ObjectiveOptions):
    """Options of BYOL.

    Attributes:
        hidden: width of the hidden layers of both heads.
        momentum: of the target network at the first step; it rises to 1 at the last. The default
            is the authors' for 1000 epochs of ImageNet; for 40 epochs they have 0.97.
    """

    dim: int = 256
    hidden: int = 4096
    momentum: float = 0.996

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("hidden", self.hidden, 1)
        check_range("momentum", self.momentum, 0, 1)


class BYOL(Objective[BYOLOptions]):
    """Grill et al., NeurIPS 2020 (arXiv 2006.07733), by its authors' code.

    The prediction q of the online network for one view is compared with the projection z of the
    target network for the other, and the loss is the sum of both ways::

        |q / |q| - z / |z||^2 = 2 - 2 cos(q, z)

    After step k of K, the target follows the online network with a momentum that rises to 1::

        1 - (1 - momentum) (cos(pi k / K) + 1) / 2

    Each view passes the networks alone, with its own batch statistics. Source:
    github.com/google-deepmind/deepmind-research at 4822a45, ``byol_experiment.py``.

    Departures: the augmentation, which is the same for both views, and the optimiser are those of
    the comparison; the target starts as a copy of the online network, and theirs at random.
    """

    name = "byol"
    title = "BYOL"
    source = "Grill et al., NeurIPS 2020, and its code"
    options_type = BYOLOptions

    def __init__(
        self, features: nn.Module, width: int, steps: int, options: BYOLOptions | None = None
    ) -> None:
        super().__init__(features, width, steps, options)
        dim, hidden = self.options.dim, self.options.hidden
        self.predictor = heads().BYOLPredictionHead(dim, hidden, dim)
        self.target = MomentumEncoder(self.encoder, self.options.momentum)

    @classmethod
    def sampler(cls, frames: int, options: BYOLOptions) -> UniformSampler:
        """Returns a sampler of frames of all videos, each with two views."""
        return UniformSampler(frames)

    def make_head(self, width: int) -> nn.Module:
        """Returns two layers with batch normalisation between them."""
        options = self.options
        head: nn.Module = heads().BYOLProjectionHead(width, options.hidden, options.dim)
        return head

    def embed(self, batch: FrameBatch) -> Sequence[Tensor]:
        """Returns the predictions of both views, and then the target's projections of both."""
        views = views_of(batch)
        predictions = [self.predictor(self.encoder(view)) for view in views]
        return *predictions, *(self.target(view) for view in views)

    def compare(self, embedded: Sequence[Tensor], batch: FrameBatch) -> Tensor:
        """Returns the sum of both squared distances."""
        predicted1, predicted2, target1, target2 = embedded
        distance = lightly("loss").NegativeCosineSimilarity()
        loss: Tensor = 4 + 2 * (distance(predicted1, target2) + distance(predicted2, target1))
        return loss

    def after_step(self, step: int) -> None:
        """Moves the target network towards the online network."""
        share = (math.cos(math.pi * step / self.steps) + 1) / 2
        self.target.momentum = 1 - (1 - self.options.momentum) * share
        self.target.update(self.encoder)
