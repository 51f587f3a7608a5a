"""Many anchors per video; every frame of a batch is compared with every other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from usucl._ranges import check_range
from usucl.data import DenseSampler, FrameBatch
from usucl.losses import Frames, LossInputs, dense_inputs
from usucl.methods.method import Encode, KeyConfig, Method, SamplingConfig, text_of


@dataclass(frozen=True)
class DenseSampling(SamplingConfig):
    """Options of :class:`usucl.data.DenseSampler`.

    Attributes:
        frames: anchors per video.
        steps_per_epoch: by default the number of steps that show every frame once.
    """

    frames: int = 8
    steps_per_epoch: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("sampling.frames", self.frames, 1)
        check_range("sampling.steps_per_epoch", self.steps_per_epoch, 1)


class Dense(Method[DenseSampling, KeyConfig]):
    """Every frame of a batch is anchor, positive and, through the mask, negative of the others.

    Both views go through one encoder with gradient. The preset has no bank: keys that lag behind,
    from a momentum encoder or a bank, contracted the embeddings of small data sets to a point (with
    the plain mlp head; this has not been tried again with mlp-bn).
    """

    name = "dense"
    sampling_options = DenseSampling
    key_options = KeyConfig
    bank_has_times = True
    preset = text_of("dense")

    def sampler(self) -> DenseSampler:
        """Returns a sampler of many anchors per video, without sampled negatives."""
        options = self.sampling
        return DenseSampler(
            options.videos,
            options.frames,
            options.positive_radius,
            options.steps_per_epoch,
            options.positives,
            options.balance,
        )

    def images(self, videos: int) -> int:
        """Returns every anchor and its positives."""
        return (
            (1 + self.sampling.positives) * min(videos, self.sampling.videos) * self.sampling.frames
        )

    def inputs(
        self, batch: FrameBatch, encode: Encode, encode_keys: Encode, window: Tensor
    ) -> LossInputs:
        """Makes all views of every frame anchors, each with the others as its positives."""
        further = batch.positive_view
        if further.dim() == 5:  # several: all first positives, then all second ones
            further = further.transpose(0, 1).flatten(0, 1)
        n = len(batch.video)
        first, *others = encode(torch.cat([batch.anchor_view, further])).split(n)
        frames = Frames(first, batch.video, batch.time, batch.patient)
        second = others[0] if len(others) == 1 else torch.stack(others, dim=1)
        return dense_inputs(frames, second, window)

    def bank_after(self, inputs: LossInputs) -> Frames:
        """Returns the further views. In their own step they are already among the batch's keys.

        With a pixel guard they have no time: it compares the frames of a batch only, so a frame of
        an earlier step is no intra-video negative.
        """
        n = len(inputs.anchors.video) // (1 + self.sampling.positives)
        later = inputs.anchors.take(slice(n, None))
        if self.sampling.guard is None:
            return later
        return later._replace(time=torch.full_like(later.time, torch.nan))
