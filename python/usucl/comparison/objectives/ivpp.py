"""IVPP: near frames of a video are positives, and the nearer they are, the more they count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from usucl._ranges import check_range
from usucl.comparison.objectives.objective import (
    Objective,
    heads,
    pairs_of_videos,
    views_of,
)
from usucl.comparison.objectives.simclr import SimCLROptions
from usucl.data import FrameBatch, FrameSampler


@dataclass(frozen=True)
class IVPPOptions(SimCLROptions):
    """Options of IVPP, with the defaults of its authors' configuration of SimCLR.

    Attributes:
        radius: greatest distance of a positive, in frames; the default is the authors' 1.5 seconds
            at 30 frames per second.
        weighted: whether nearer positives count more.
    """

    dim: int = 768
    radius: int = 45
    weighted: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("radius", self.radius, 0)


class IVPP(Objective[IVPPOptions]):
    """VanBerlo et al., Frontiers in Imaging 2024 (arXiv 2403.07715): IVPP with SimCLR.

    Two frames of a video at a distance of d frames, at most r, are a positive pair of the weight::

        w = (r - d + 1) / (r + 1)

    The loss is the mean over the 2 N views of the pair's w times the view's term of NT-Xent, see
    :class:`SimCLR`. A batch has one pair per video. Each frame passes the networks alone, with its
    own batch statistics. Source: github.com/bvanberl/IVPP at 597aae3, ``ncus_dataset.py`` and
    ``losses.py``.

    Departures: distances are in frames, where the authors have seconds, as not all videos tell
    their frame rate; the positive is another frame than the anchor wherever there is one; the
    authors' loss is twice this, and their head ends without a bias; the augmentation and the
    optimiser are those of the comparison.
    """

    name = "ivpp"
    title = "IVPP"
    source = "VanBerlo et al., Frontiers in Imaging 2024, and its code"
    options_type = IVPPOptions
    time_unit = "frames"

    @classmethod
    def sampler(cls, frames: int, options: IVPPOptions) -> FrameSampler:
        """Returns a sampler of one pair of near frames per video."""
        return pairs_of_videos(frames, options.radius)

    def make_head(self, width: int) -> nn.Module:
        """Returns two layers of equal width with batch normalisation between them."""
        dim = self.options.dim
        head: nn.Module = heads().BYOLProjectionHead(width, dim, dim)
        return head

    def embed(self, batch: FrameBatch) -> Sequence[Tensor]:
        """Returns both frames of every video."""
        return [self.encoder(view) for view in views_of(batch)]

    def compare(self, embedded: Sequence[Tensor], batch: FrameBatch) -> Tensor:
        """Returns weighted NT-Xent.

        Raises:
            ValueError: the batch does not tell the distances of its positives, or tells them in
                another unit than frames.
        """
        both = F.normalize(torch.cat(list(embedded)), dim=1)
        logits = both @ both.T / self.options.temperature
        logits = logits.masked_fill(
            torch.eye(len(both), dtype=torch.bool, device=both.device), -torch.inf
        )
        row = torch.arange(len(both), device=both.device)
        terms = F.cross_entropy(logits, row.roll(len(both) // 2), reduction="none")
        return (self._weights(batch).to(terms).repeat(2) * terms).mean()

    def _weights(self, batch: FrameBatch) -> Tensor:
        offset, radius = batch.positive_offset, self.options.radius
        if offset is None or not torch.equal(offset, offset.round()):
            raise ValueError(f"positive_offset must be in frames, got {offset}")
        if not self.options.weighted:
            return torch.ones_like(offset)
        return (radius - offset.double().abs() + 1) / (radius + 1)
