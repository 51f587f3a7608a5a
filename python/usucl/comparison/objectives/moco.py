"""MoCo v2, and the same with positives from anywhere in the video.

Sources: He et al., CVPR 2020 (arXiv 1911.05722), and Chen et al., 2020 (arXiv 2003.04297), which
adds the head of two layers and another temperature; for positives of the same video Gordon et al.,
2020 (arXiv 2003.07990), and Feichtenhofer et al., CVPR 2021 (arXiv 2104.14558, by its abstract).
Constants are those of github.com/facebookresearch/moco and github.com/danielgordon10/vince.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from usucl._ranges import check_range
from usucl.bank import NegativeBank
from usucl.comparison.objectives.objective import (
    Objective,
    ObjectiveOptions,
    heads,
    pairs_of_videos,
    views_of,
)
from usucl.data import FrameBatch, FrameSampler, Sampler, UniformSampler
from usucl.losses import Frames
from usucl.models import MomentumEncoder


@dataclass(frozen=True)
class MoCoOptions(ObjectiveOptions):
    """Options of MoCo v2.

    Attributes:
        temperature: divides the cosine similarities.
        queue: number of keys of earlier steps that are negatives. The paper's number is for a
            million images; few videos want one below their number of frames.
        momentum: of the key encoder, which follows the other within about 1 / (1 - momentum) steps.
            These should be few of a run's.
    """

    temperature: float = 0.2
    queue: int = 65536
    momentum: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("temperature", self.temperature, 0, above=True)
        check_range("queue", self.queue, 1)
        check_range("momentum", self.momentum, 0, 1)


Options = TypeVar("Options", bound=MoCoOptions)


class QueuedObjective(Objective[Options]):
    """Queries against the keys of a momentum encoder, those of earlier steps in a queue.

    Attributes:
        keys: the momentum encoder.
        queue: the keys of earlier steps. It starts empty.
        heads_side_by_side: number of vectors of length ``dim`` in an embedding.
    """

    heads_side_by_side: ClassVar[int] = 1

    def __init__(
        self, features: nn.Module, width: int, steps: int, options: Options | None = None
    ) -> None:
        super().__init__(features, width, steps, options)
        self.keys = MomentumEncoder(self.encoder, self.options.momentum)
        length = self.heads_side_by_side * self.options.dim
        self.queue = NegativeBank(self.options.queue, length)
        self._latest: Frames | None = None

    def make_head(self, width: int) -> nn.Module:
        """Returns two layers without batch normalisation."""
        head: nn.Module = heads().MoCoProjectionHead(width, width, self.options.dim)
        return head

    def embed(self, batch: FrameBatch) -> Sequence[Tensor]:
        """Returns the queries, and the keys of their positives."""
        first, second = views_of(batch)
        return self.encoder(first), self.keys(second)

    def queued(self, like: Tensor) -> Frames:
        """Returns the queue, which moves to the device of ``like``."""
        return self.queue.to(like.device).frames().take(slice(len(self.queue)))

    def remember(self, keys: Tensor, batch: FrameBatch) -> None:
        """Takes note of normalised keys, which enter the queue after the step."""
        time = torch.full_like(batch.time, torch.nan)
        self._latest = Frames(keys.detach(), batch.video, time, batch.patient)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Returns the queue, which is a part of the module's state."""
        return self.queue.state_dict()

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Loads the queue."""
        self.queue.load_state_dict(state)

    def after_step(self, step: int) -> None:
        """Puts the keys of the step into the queue and moves the key encoder."""
        if self._latest is not None:
            self.queue.enqueue(self._latest)
            self._latest = None
        self.keys.update(self.encoder)


class MoCo(QueuedObjective[MoCoOptions]):
    """InfoNCE of He et al., CVPR 2020, with the head and the temperature of Chen et al., 2020.

    For a query q, the key k+ of another view of the same frame and the keys k of the queue, all
    normalised, with temperature t::

        -log(exp(q k+ / t) / (exp(q k+ / t) + sum over k of exp(q k / t)))

    Source: github.com/facebookresearch/moco, ``builder.py``.

    Departures: the queue starts empty instead of with random vectors; keys are not shuffled between
    devices, as there is one; the augmentation and the optimiser are those of the comparison; the
    head is as wide as the features, which is the paper's 2048 for ResNet-50.
    """

    name = "moco"
    title = "MoCo v2"
    source = "He et al., CVPR 2020; Chen et al., 2020"
    options_type = MoCoOptions
    negatives_of_own_video = True

    @classmethod
    def sampler(cls, frames: int, options: MoCoOptions) -> Sampler:
        """Returns a sampler of frames of all videos, each with two views."""
        return UniformSampler(frames)

    def compare(self, embedded: Sequence[Tensor], batch: FrameBatch) -> Tensor:
        """Returns InfoNCE, which is 0 as long as the queue is empty."""
        query, key = (F.normalize(z, dim=1) for z in embedded)
        queue = self.queued(key)
        excluded = None if self.negatives_of_own_video else own_video(batch, queue)
        self.remember(key, batch)
        return info_nce(query, key, queue.embedding, excluded, self.options.temperature)


class VideoMoCo(MoCo):
    """MoCo v2 with another frame of the same video as the positive, wherever in it.

    Gordon et al., 2020 (VINCE), for single frames, whose ResNet-50 has the constants of MoCo v2,
    and Feichtenhofer et al., CVPR 2021, for clips. A batch has one pair per video.

    Departures: those of :class:`MoCo`; a query has one positive, where VINCE has all other frames
    drawn from its video; the keys of the step are no negatives of each other, which they are in
    VINCE; keys of its own video are left out of its negatives, because a queue holds them often
    where there are few videos, and hardly ever in the papers.
    """

    name = "video-moco"
    title = "MoCo, video-positive"
    source = "Gordon et al., 2020, and its code; Feichtenhofer et al., CVPR 2021"
    negatives_of_own_video = False

    @classmethod
    def sampler(cls, frames: int, options: MoCoOptions) -> FrameSampler:
        """Returns a sampler of one pair per video."""
        return pairs_of_videos(frames)


def own_video(batch: FrameBatch, queue: Frames) -> Tensor:
    """Returns bool [N, K]: whether a key of the queue is of the anchor's video."""
    return batch.video[:, None] == queue.video[None, :]


def info_nce(
    query: Tensor, key: Tensor, negatives: Tensor, excluded: Tensor | None, temperature: float
) -> Tensor:
    """Returns InfoNCE of normalised queries, a scalar.

    Args:
        query, key: ``[N, D]``, row by row positive pairs.
        negatives: ``[K, D]``, normalised.
        excluded: bool ``[N, K]``, negatives that do not count for a query; None for none.
        temperature: divides the similarities.
    """
    others = query @ negatives.to(query.dtype).T
    if excluded is not None:
        others = others.masked_fill(excluded, -torch.inf)
    logits = torch.cat([(query * key).sum(1, keepdim=True), others], dim=1) / temperature
    first = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return F.cross_entropy(logits, first)
