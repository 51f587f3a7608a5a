"""LeJEPA: views of a frame agree, and the vectors are distributed like a normal distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
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
class LeJEPAOptions(ObjectiveOptions):
    """Options of LeJEPA, with the defaults of lightly.

    Attributes:
        hidden: width of the head's hidden layers.
        weight: of the regularisation, in [0, 1]; the agreement has the rest.
        slices: random directions per step in which the distribution is tested.
        views: views of every frame, at least 2.
    """

    dim: int = 64
    hidden: int = 2048
    weight: float = 0.05
    slices: int = 1024
    views: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("hidden", self.hidden, 1)
        check_range("weight", self.weight, 0, 1)
        check_range("slices", self.slices, 1)
        check_range("views", self.views, 2)


class LeJEPA(Objective[LeJEPAOptions]):
    """Balestriero and LeCun, 2025 (arXiv 2511.08544): SIGReg and the agreement of views.

    With vectors z_vn of V views of N frames in D dimensions, their mean m_n over the views, and a
    weight w::

        w SIGReg(z) + (1 - w) mean over v, n and dimensions of (m_n - z_vn)^2

    SIGReg is the mean, over views and random unit directions a, of the Epps-Pulley statistic of the
    N projections x = a z_vn, an integral over t in [-3, 3] by the trapezoidal rule of 17 knots on
    its half::

        N integral of |mean of exp(i t x) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt

    Source: github.com/rbalestr-lab/lejepa at eddffdd, ``MINIMAL.md`` and ``epps_pulley.py``, whose
    constants these are; its example has a weight of 0.02 and 256 directions.

    Departures: all views are of one kind, where the authors' recipe has two large crops and six
    small ones, and predicts the large ones only; the augmentation and the optimiser are those of
    the comparison.
    """

    name = "lejepa"
    title = "LeJEPA"
    source = "Balestriero and LeCun, 2025, and its code"
    options_type = LeJEPAOptions

    def __init__(
        self,
        features: nn.Module,
        width: int,
        steps: int,
        options: LeJEPAOptions | None = None,
    ) -> None:
        super().__init__(features, width, steps, options)
        self.regularisation = lightly("loss").SIGReg(num_vectors=self.options.slices)

    @classmethod
    def sampler(cls, frames: int, options: LeJEPAOptions) -> UniformSampler:
        """Returns a sampler of frames of all videos, each with all its views."""
        return UniformSampler(frames, positives=options.views - 1)

    def make_head(self, width: int) -> nn.Module:
        """Returns three layers with batch normalisation between them."""
        options = self.options
        head: nn.Module = heads().LeJEPAProjectionHead(width, options.hidden, options.dim)
        return head

    def embed(self, batch: FrameBatch) -> Sequence[Tensor]:
        """Returns all views of every frame."""
        return encode_together(self.encoder, views_of(batch))

    def compare(self, embedded: Sequence[Tensor], batch: FrameBatch) -> Tensor:
        """Returns the weighted sum of regularisation and agreement."""
        views, weight = torch.stack(list(embedded)), self.options.weight
        agree = lightly("loss.lejepa_loss").lejepa_invariance_loss
        agreement: Tensor = agree(all_proj=views, global_proj=views)
        return weight * self.regularisation(views) + (1 - weight) * agreement
