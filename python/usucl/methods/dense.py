"""Many anchors per video; every frame of a batch is compared with every other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from usucl._ranges import check_range
from usucl.data import DenseSampler, FrameBatch
from usucl.losses import Frames, LossInputs, dense_inputs, momentum_inputs, momentum_keys
from usucl.methods.method import Encode, Method, MomentumKeys, SamplingConfig, text_of


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


@dataclass(frozen=True)
class DenseKeys(MomentumKeys):
    """The bank, and the encoders of positives and keys.

    Attributes:
        momentum: m of a momentum encoder, in [0, 1], which then embeds the positives and fills the
            bank; null for none, so that one encoder embeds all views and has all gradients. It
            follows the other within about 1 / (1 - m) steps, which should be few of a run's: 0.99
            for thousands of steps, 0.999 for more. A bank of many steps is better with one, because
            its frames are then of about the same encoder.
        negatives: encoder of the intra-video negatives where there is a momentum encoder:
            ``"query"`` with gradient, from the anchors of the batch alone, or ``"momentum"``
            without, from the positives of the batch and those in the bank.
    """

    momentum: float | None = None
    negatives: Literal["query", "momentum"] = "query"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("key.momentum", self.momentum, 0, 1)
        for name, plain in (("negatives", "query"), ("batch_norm", "own")):
            value = getattr(self, name)
            if self.momentum is None and value != plain:
                raise ValueError(
                    f"key.{name} must be {plain!r} where key.momentum is null, because there is no "
                    f"momentum encoder then, got {value!r}"
                )


class Dense(Method[DenseSampling, DenseKeys]):
    """Every frame of a batch is anchor, positive and, through the mask, negative of the others.

    Without a momentum encoder all views go through one encoder with gradient: each is an anchor,
    a positive of the other views of its frame, and a key. With one, the first views are the anchors
    and the momentum encoder embeds the positives; see :func:`usucl.losses.momentum_inputs`.

    A bank adds the positives of earlier steps to the keys: as cross-video negatives, and as
    intra-video negatives too unless ``key.negatives`` leaves those to the query encoder.
    """

    name = "dense"
    sampling_options = DenseSampling
    key_options = DenseKeys
    preset = text_of("dense")

    @property
    def momentum(self) -> float | None:
        """Momentum of the encoder of the positives; None for none."""
        return self.key.momentum

    @property
    def bank_has_times(self) -> bool:
        """Whether frames of earlier steps can be intra-video negatives.

        With a pixel guard they cannot: it compares the frames of a batch only.
        """
        with_gradient = self.key.momentum is not None and self.key.negatives == "query"
        return self.sampling.guard is None and not with_gradient

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
        """Makes every frame an anchor, and the other frames of the batch its negatives."""
        several, offset = batch.positive_view.dim() == 5, batch.positive_offset
        n = len(batch.video)
        if self.momentum is not None:
            query = encode(batch.anchor_view)
            positives = encode_keys(batch.positive_view.flatten(0, -4))
            return momentum_inputs(
                Frames(query, batch.video, batch.time, batch.patient),
                positives.unflatten(0, (n, -1)) if several else positives,
                window,
                query_negatives=self.key.negatives == "query",
                offset=offset,
            )
        further = batch.positive_view
        if several:  # all first positives, then all second ones
            further = further.transpose(0, 1).flatten(0, 1)
        first, *others = encode(torch.cat([batch.anchor_view, further])).split(n)
        frames = Frames(first, batch.video, batch.time, batch.patient)
        second = others[0] if len(others) == 1 else torch.stack(others, dim=1)
        return dense_inputs(frames, second, window, offset=offset)

    def bank_after(self, inputs: LossInputs) -> Frames:
        """Returns the further views. In their own step they are already among the batch's keys."""
        if self.momentum is not None:
            return momentum_keys(inputs.anchors, inputs.positives, with_times=self.bank_has_times)
        n = len(inputs.anchors.video) // (1 + self.sampling.positives)
        later = inputs.anchors.take(slice(n, None))
        if self.bank_has_times:
            return later
        return later._replace(time=torch.full_like(later.time, torch.nan))
