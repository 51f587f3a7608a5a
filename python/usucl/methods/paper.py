"""Basu et al., MICCAI 2022 (arXiv 2207.13148), as published and as in its released code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from usucl._ranges import check_range
from usucl.data import FrameBatch, FrameSampler
from usucl.losses import Frames, LossInputs, momentum_keys, paper_code_inputs, paper_inputs
from usucl.methods.method import Encode, Method, MomentumKeys, SamplingConfig, text_of


@dataclass(frozen=True)
class PaperSampling(SamplingConfig):
    """Options of :class:`usucl.data.FrameSampler`.

    Attributes:
        negatives: sampled intra-video negatives per anchor.
    """

    negatives: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("sampling.negatives", self.negatives, 0)


@dataclass(frozen=True)
class PaperKeys(MomentumKeys):
    """The bank, which ``paper-code`` leaves empty, and the encoders of the keys.

    Attributes:
        momentum: m of the momentum encoder, which embeds the positives.
        negatives: encoder of the sampled intra-video negatives, ``"query"`` with gradient (the
            paper's code) or ``"momentum"`` without (the paper's figure).
    """

    momentum: float = 0.999
    negatives: Literal["query", "momentum"] = "query"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("key.momentum", self.momentum, 0, 1)


class Paper(Method[PaperSampling, PaperKeys]):
    """One anchor per video against sampled intra-video and the hardest cross-video negatives.

    The preset samples three intra-video negatives and takes the soft nearest neighbour of the four
    hardest frames of other videos, which the bank and the mask by video make truly cross-video.
    """

    name = "paper"
    sampling_options = PaperSampling
    key_options = PaperKeys
    preset = text_of("paper")

    @property
    def momentum(self) -> float:
        """Momentum of the encoder of the positives."""
        return self.key.momentum

    def sampler(self) -> FrameSampler:
        """Returns a sampler of one anchor per video with its negatives."""
        options = self.sampling
        return FrameSampler(
            options.videos,
            options.negatives,
            options.positive_radius,
            positives=options.positives,
            balance=options.balance,
        )

    def images(self, videos: int) -> int:
        """Returns anchor, positives and negatives of every video."""
        options = self.sampling
        return min(videos, options.videos) * (1 + options.positives + options.negatives)

    def inputs(
        self, batch: FrameBatch, encode: Encode, encode_keys: Encode, window: Tensor
    ) -> LossInputs:
        """Makes one anchor per video; the sampler has already applied the window."""
        anchors = encode(batch.anchor_view)
        positives = encode_keys(batch.positive_view.flatten(0, -4))
        if self.sampling.positives > 1:
            positives = positives.unflatten(0, (-1, self.sampling.positives))
        n, k = batch.negative_time.shape
        negatives = anchors.new_empty(n, k, anchors.shape[1])
        if k > 0:
            encode_negatives = encode if self.key.negatives == "query" else encode_keys
            negatives = encode_negatives(batch.negative_view.flatten(0, 1)).unflatten(0, (n, k))
        return self._arranged(batch, anchors, positives, negatives)

    def _arranged(
        self, batch: FrameBatch, anchors: Tensor, positives: Tensor, negatives: Tensor
    ) -> LossInputs:
        frames = Frames(anchors, batch.video, batch.time, batch.patient)
        inputs = paper_inputs(frames, positives, negatives, batch.negative_time)
        return inputs._replace(positive_distance=_distance(batch))

    def bank_before(self, inputs: LossInputs) -> Frames | None:
        """Returns the positives, so that those of the batch's other videos are keys in this step.

        They have no time, which keeps them out of the intra-video negatives: those are sampled.
        """
        return momentum_keys(inputs.anchors, inputs.positives, with_times=False)


class PaperCode(Paper):
    """The paper's method as its released code computes it.

    There the set called cross-video is the batch's own intra-video negatives, unmasked and
    detached, and the curriculum's cosine compounds.
    """

    name = "paper-code"
    preset = text_of("paper-code")

    def _arranged(
        self, batch: FrameBatch, anchors: Tensor, positives: Tensor, negatives: Tensor
    ) -> LossInputs:
        found = batch.negative_time.isfinite()
        inputs = paper_code_inputs(anchors, positives, negatives, found)
        return inputs._replace(positive_distance=_distance(batch))

    def bank_before(self, inputs: LossInputs) -> None:
        """Returns None: the released code compares within the batch."""


def _distance(batch: FrameBatch) -> Tensor | None:
    offset = batch.positive_offset
    return None if offset is None else offset.reshape(len(offset), -1).abs()
